"""An ADS server that shares no code with ours: grpcio and xds-protos. It serves what it is told, resource by resource, and prints
one line of JSON for each thing that it says or hears.

    server.py ADDRESS CHAIN KEY ROOTS delta|whole

A line on its standard input is all that there is from now on:

    {"listeners": {NAME: {"port": PORT, "routes": NAME, "broken": true?}}, "routes": {NAME: {"cluster": NAME} | {"body": TEXT}},
     "clusters": [NAME], "endpoints": {NAME: [PORT]}}
"""

import concurrent.futures
import hashlib
import itertools
import json
import queue
import sys
import threading

import grpc
from google.protobuf import any_pb2
from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.core.v3 import address_pb2, config_source_pb2
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.config.listener.v3 import listener_components_pb2, listener_pb2
from envoy.config.route.v3 import route_components_pb2, route_pb2
from envoy.extensions.filters.http.router.v3 import router_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2
from envoy.service.discovery.v3 import ads_pb2_grpc, discovery_pb2

TYPE = "type.googleapis.com/"
CDS, EDS, LDS, RDS = TYPES = [
    TYPE + message.DESCRIPTOR.full_name
    for message in (
        cluster_pb2.Cluster,
        endpoint_pb2.ClusterLoadAssignment,
        listener_pb2.Listener,
        route_pb2.RouteConfiguration,
    )
]
ADS = config_source_pb2.ConfigSource(ads={}, resource_api_version="V3")


def packed(message):
    anything = any_pb2.Any()
    anything.Pack(message, deterministic=True)
    return anything


def address(port):
    return address_pb2.Address(socket_address={"address": "127.0.0.1", "port_value": port})


def listener(name, port, routes="", broken=False):
    manager = http_connection_manager_pb2.HttpConnectionManager(
        stat_prefix=name,
        rds={"route_config_name": routes, "config_source": ADS},
        http_filters=[{"name": "envoy.filters.http.router", "typed_config": packed(router_pb2.Router())}],
    )
    chain = listener_components_pb2.FilterChain()
    if not broken:
        chain.filters.add(name="envoy.filters.network.http_connection_manager", typed_config=packed(manager))
    return listener_pb2.Listener(name=name, address=address(port), filter_chains=[chain])


def routes(name, cluster=None, body=None):
    route = route_components_pb2.Route(match={"prefix": "/"})
    if cluster:
        route.route.cluster = cluster
    else:
        route.direct_response.status = 200
        route.direct_response.body.inline_string = body
    return route_pb2.RouteConfiguration(name=name, virtual_hosts=[{"name": "all", "domains": ["*"], "routes": [route]}])


def cluster(name):
    return cluster_pb2.Cluster(name=name, type="EDS", eds_cluster_config={"eds_config": ADS}, connect_timeout={"seconds": 1})


def endpoints(name, ports):
    each = [{"endpoint": {"address": address(port)}} for port in ports]
    return endpoint_pb2.ClusterLoadAssignment(cluster_name=name, endpoints=[{"lb_endpoints": each}])


def resources(told):
    """All resources, packed, by type and name."""
    made = {
        CDS: [cluster(name) for name in told["clusters"]],
        EDS: [endpoints(name, ports) for name, ports in told["endpoints"].items()],
        LDS: [listener(name, **rest) for name, rest in told["listeners"].items()],
        RDS: [routes(name, **rest) for name, rest in told["routes"].items()],
    }
    name = lambda one: getattr(one, "cluster_name", "") or one.name
    return {kind: {name(one): packed(one) for one in each} for kind, each in made.items()}


def version(*parts):
    return hashlib.sha256(b"".join(parts)).hexdigest()[:12]


def say(**line):
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


class Stream:
    """What is known of one client, from the opening of its stream to its end."""

    numbers = itertools.count(1)

    def __init__(self, server):
        self.server = server
        self.number = next(Stream.numbers)
        self.nonces = itertools.count(1)
        self.out = queue.Queue()
        # By type: the names that are asked for; None: all.
        self.wanted = {}
        # By type: what the client was sent and has not been told to drop, name to version; for the whole, the version alone.
        self.sent = {}

    def hears(self, request, **rest):
        say(
            heard=request.type_url.rsplit(".", 1)[-1],
            stream=self.number,
            node=request.node.id,
            nonce=request.response_nonce,
            error=request.error_detail.message if request.HasField("error_detail") else None,
            code=request.error_detail.code,
            **rest,
        )

    def says(self, kind, response, **rest):
        response.nonce = f"{self.number}-{next(self.nonces)}"
        say(said=kind.rsplit(".", 1)[-1], stream=self.number, nonce=response.nonce, **rest)
        self.out.put(response)

    def flush(self):
        # What is made before what needs it.
        for kind in TYPES:
            if kind in self.wanted:
                self.flush_kind(kind)

    def there(self, kind):
        wanted = self.wanted[kind]
        return {name: one for name, one in self.server.resources[kind].items() if wanted is None or name in wanted}


class Delta(Stream):
    def hear(self, request):
        self.hears(
            request,
            subscribe=list(request.resource_names_subscribe),
            unsubscribe=list(request.resource_names_unsubscribe),
            initial=dict(request.initial_resource_versions),
        )
        kind = request.type_url
        if kind not in self.wanted:
            self.wanted[kind] = None if kind in (CDS, LDS) else set(request.resource_names_subscribe)
            self.sent[kind] = dict(request.initial_resource_versions)
        elif self.wanted[kind] is not None:
            self.wanted[kind] |= set(request.resource_names_subscribe)
            for name in request.resource_names_unsubscribe:
                self.wanted[kind].discard(name)
                self.sent[kind].pop(name, None)
        self.flush_kind(kind)

    def flush_kind(self, kind):
        there, sent = self.there(kind), self.sent[kind]
        versions = {name: version(one.value) for name, one in there.items()}
        news = [name for name in there if sent.get(name) != versions[name]]
        gone = [name for name in sent if name not in there]
        if not news and not gone:
            return
        response = discovery_pb2.DeltaDiscoveryResponse(type_url=kind, removed_resources=gone)
        for name in news:
            response.resources.add(name=name, version=versions[name], resource=there[name])
        self.sent[kind] = versions
        self.says(kind, response, names={name: versions[name] for name in news}, removed=gone)


class Whole(Stream):
    def hear(self, request):
        self.hears(request, version=request.version_info, names=list(request.resource_names))
        kind = request.type_url
        if kind not in self.wanted:
            self.sent[kind] = request.version_info
        self.wanted[kind] = None if kind in (CDS, LDS) else set(request.resource_names)
        self.flush_kind(kind)

    def flush_kind(self, kind):
        there = self.there(kind)
        now = version(*(part for name in sorted(there) for part in (name.encode(), there[name].value)))
        # Of what is asked for by name, absence says nothing.
        if self.sent[kind] == now or not there and kind in (EDS, RDS):
            return
        self.sent[kind] = now
        response = discovery_pb2.DiscoveryResponse(type_url=kind, version_info=now, resources=list(there.values()))
        self.says(kind, response, version=now, names=sorted(there))


class Server(ads_pb2_grpc.AggregatedDiscoveryServiceServicer):
    def __init__(self, protocol):
        self.protocol = protocol
        self.lock = threading.Lock()
        self.resources = {kind: {} for kind in TYPES}
        self.streams = []

    def set(self, told):
        with self.lock:
            self.resources = resources(told)
            for stream in self.streams:
                stream.flush()

    def serve(self, kind, requests):
        stream = kind(self)
        with self.lock:
            self.streams.append(stream)

        def listen():
            try:
                for request in requests:
                    with self.lock:
                        stream.hear(request)
            except Exception as error:
                say(ended=stream.number, why=type(error).__name__)
            stream.out.put(None)

        threading.Thread(target=listen, daemon=True).start()
        yield from iter(stream.out.get, None)
        with self.lock:
            self.streams.remove(stream)

    def StreamAggregatedResources(self, requests, context):
        return self.serve(Whole, requests)

    def DeltaAggregatedResources(self, requests, context):
        if self.protocol == "whole":
            context.abort(grpc.StatusCode.UNIMPLEMENTED, "no delta here")
        return self.serve(Delta, requests)


def main():
    at, chain, key, roots, protocol = sys.argv[1:]
    read = lambda path: open(path, "rb").read()
    credentials = grpc.ssl_server_credentials([(read(key), read(chain))], read(roots), require_client_auth=True)
    server = Server(protocol)
    # Nothing is served before there is something.
    server.set(json.loads(sys.stdin.readline()))
    # A proxy asks every ten seconds whether anybody is there, which this server would take for an attack.
    options = [("grpc.http2.min_ping_interval_without_data_ms", 1000), ("grpc.so_reuseport", 0)]
    listening = grpc.server(concurrent.futures.ThreadPoolExecutor(8), options=options)
    ads_pb2_grpc.add_AggregatedDiscoveryServiceServicer_to_server(server, listening)
    assert listening.add_secure_port(at, credentials)
    listening.start()
    for line in sys.stdin:
        server.set(json.loads(line))
    listening.stop(0)


main()
