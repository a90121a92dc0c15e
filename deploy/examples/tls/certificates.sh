#!/bin/sh
# Makes certificates to try mutual TLS with, in certs/ beside this script: a certificate authority, which is kept once it is there, and for
# web and cart a key and a certificate with a SPIFFE identity of the trust domain `shop`. Run again, it replaces these two.
# Needs openssl. The authority's key lies there unprotected: this is for trying.
set -eu
cd "$(dirname "$0")"
umask 077
mkdir -p certs
cd certs

# The key and certificate of $1, with the extensions in $1.ext; $2: days; the rest: who signs.
make() {
    name=$1 days=$2
    shift 2
    openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "$name.key.new" -out "$name.csr" -subj "/CN=$name"
    case $1 in itself) set -- -signkey "$name.key.new" ;; esac
    openssl x509 -req -in "$name.csr" -days "$days" -extfile "$name.ext" -out "$name.pem.new" "$@"
    # Whole or not at all: a proxy may be looking.
    mv "$name.key.new" "$name.key"
    mv "$name.pem.new" "$name.pem"
    rm "$name.csr" "$name.ext"
}

if [ ! -e ca.pem ]; then
    printf '%s\n' 'basicConstraints = critical, CA:TRUE' 'keyUsage = critical, keyCertSign, cRLSign' >ca.ext
    make ca 3650 itself
fi
for name in web cart; do
    printf '%s\n' "subjectAltName = URI:spiffe://shop/ns/$name/sa/$name" 'basicConstraints = critical, CA:FALSE' \
        'keyUsage = critical, digitalSignature' 'extendedKeyUsage = serverAuth, clientAuth' >"$name.ext"
    make "$name" 30 -CA ca.pem -CAkey ca.key -CAcreateserial
done
