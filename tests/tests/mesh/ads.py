"""An ADS client that shares no code with ours: grpcio and xds-protos. It asks for all listeners and clusters, then for the
routes, endpoints and secrets that they name, takes what it is sent, and prints one line of JSON a message.

    ads.py ADDRESS CHAIN KEY ROOTS delta|whole

A line on its standard input is the name of a resource: the next message that has it is refused.
"""

import json
import queue
import sys
import threading

import grpc
from google.rpc import status_pb2
from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.config.route.v3 import route_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2
from envoy.extensions.transport_sockets.tls.v3 import secret_pb2, tls_pb2
from envoy.service.discovery.v3 import ads_pb2_grpc, discovery_pb2

TYPE = "type.googleapis.com/"
CDS, EDS, LDS, RDS, SDS = TYPES = [
    TYPE + message.DESCRIPTOR.full_name
    for message in (
        cluster_pb2.Cluster,
        endpoint_pb2.ClusterLoadAssignment,
        listener_pb2.Listener,
        route_pb2.RouteConfiguration,
        secret_pb2.Secret,
    )
]
MESSAGES = {
    CDS: cluster_pb2.Cluster,
    EDS: endpoint_pb2.ClusterLoadAssignment,
    LDS: listener_pb2.Listener,
    RDS: route_pb2.RouteConfiguration,
    SDS: secret_pb2.Secret,
}


def secrets_of(socket):
    """The secrets that a transport socket asks ADS for."""
    for kind in (tls_pb2.DownstreamTlsContext, tls_pb2.UpstreamTlsContext):
        context = kind()
        if socket.typed_config.Unpack(context):
            common = context.common_tls_context
            combined = common.combined_validation_context.validation_context_sds_secret_config
            for config in [*common.tls_certificate_sds_secret_configs, combined]:
                if config.name and config.sds_config.HasField("ads"):
                    yield config.name


def needs(held):
    """What the listeners and clusters that are held name."""
    names = {EDS: set(), RDS: set(), SDS: set()}
    for name, cluster in held[CDS].items():
        if cluster.type == cluster_pb2.Cluster.EDS:
            names[EDS].add(name)
        names[SDS].update(secrets_of(cluster.transport_socket))
    for listener in held[LDS].values():
        for chain in listener.filter_chains:
            names[SDS].update(secrets_of(chain.transport_socket))
            for one in chain.filters:
                manager = http_connection_manager_pb2.HttpConnectionManager()
                if one.typed_config.Unpack(manager):
                    names[RDS].add(manager.rds.route_config_name)
    return names


def name_of(resource):
    return getattr(resource, "cluster_name", "") or resource.name


class Client:
    def __init__(self, whole):
        self.whole = whole
        self.held = {kind: {} for kind in TYPES}
        self.asked = {}
        self.version = {}
        self.nonce = {}
        self.refuse = set()
        self.requests = queue.Queue()
        for kind in (CDS, LDS):
            self.say(kind)

    def say(self, kind, nonce="", refused=None):
        detail = status_pb2.Status(code=3, message=f"{refused} is refused") if refused else None
        wanted = self.asked.get(kind, set())
        if self.whole:
            request = discovery_pb2.DiscoveryRequest(
                type_url=kind,
                resource_names=sorted(wanted),
                version_info=self.version.get(kind, ""),
                response_nonce=nonce,
                error_detail=detail,
            )
        else:
            request = discovery_pb2.DeltaDiscoveryRequest(type_url=kind, response_nonce=nonce, error_detail=detail)
        request.node.id = "independent"
        request.node.user_agent_name = "ads.py"
        self.requests.put(request)

    def want(self):
        for kind, wanted in needs(self.held).items():
            before = self.asked.get(kind, set())
            if wanted == before:
                continue
            self.asked[kind] = wanted
            if self.whole:
                self.say(kind, self.nonce.get(kind, ""))
                continue
            request = discovery_pb2.DeltaDiscoveryRequest(
                type_url=kind,
                resource_names_subscribe=sorted(wanted - before),
                resource_names_unsubscribe=sorted(before - wanted),
            )
            self.requests.put(request)

    def hear(self, response):
        kind = response.type_url
        packed = response.resources if self.whole else [one.resource for one in response.resources]
        resources = {}
        for one in packed:
            resource = MESSAGES[kind]()
            assert one.Unpack(resource), one.type_url
            resources[name_of(resource)] = resource
        refused = next((name for name in sorted(resources) if name in self.refuse), None)
        removed = [] if self.whole else list(response.removed_resources)
        self.nonce[kind] = response.nonce
        if refused:
            self.refuse.discard(refused)
        else:
            if self.whole:
                self.version[kind] = response.version_info
                if kind in (CDS, LDS):
                    removed = sorted(set(self.held[kind]) - set(resources))
            for name in removed:
                self.held[kind].pop(name, None)
            self.held[kind].update(resources)
        self.say(kind, response.nonce, refused)
        line = {
            "kind": kind.rsplit(".", 1)[1],
            "version": response.version_info if self.whole else response.system_version_info,
            "names": sorted(resources),
            "removed": sorted(removed),
            "refused": refused,
            "held": {kind.rsplit(".", 1)[1]: sorted(names) for kind, names in self.held.items()},
        }
        print(json.dumps(line), flush=True)
        self.want()


def main():
    address, chain, key, roots, protocol = sys.argv[1:]
    read = lambda path: open(path, "rb").read()
    credentials = grpc.ssl_channel_credentials(read(roots), read(key), read(chain))
    options = [("grpc.ssl_target_name_override", "localhost"), ("grpc.max_receive_message_length", 64 << 20)]
    client = Client(protocol == "whole")

    def refusals():
        for line in sys.stdin:
            client.refuse.add(line.strip())

    threading.Thread(target=refusals, daemon=True).start()
    with grpc.secure_channel(address, credentials, options) as channel:
        stub = ads_pb2_grpc.AggregatedDiscoveryServiceStub(channel)
        call = stub.StreamAggregatedResources if client.whole else stub.DeltaAggregatedResources
        for response in call(iter(client.requests.get, None)):
            client.hear(response)


main()
