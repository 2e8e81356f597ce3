"""Says which clusters the Python code of Emissary makes of Kubernetes objects.

Reads one JSON request from each line of its input and writes one JSON answer for each to its output, in the same order.
A request is {"id", "yaml"}; an answer is {"id", "clusters"}, or {"id", "failure"} where that code fails as a whole. A
cluster is {"name", "host", "port", "tls"}. Host and port are null where the endpoints come from a resolver. `tls` is null
without TLS; otherwise it has the file of each part of the TLS context that Emissary writes, below the directory of its
Secrets, and null for a part that it writes without a file. PYTHONPATH has the directory `python` of Emissary, and what it
imports.
"""

import json
import logging
import os
import sys
import tempfile

os.environ.setdefault("AMBASSADOR_NAMESPACE", "emissary")
os.environ.setdefault("AMBASSADOR_ID", "default")
logging.disable(logging.CRITICAL)

from ambassador import IR, Config, EnvoyConfig  # noqa: E402
from ambassador.fetch import ResourceFetcher  # noqa: E402
from ambassador.utils import SecretHandler  # noqa: E402

LOG = logging.getLogger("emissary")
# Emissary answers its own diagnostics through a cluster too.
DIAGNOSTICS = 8877


def clusters_of(text, directory):
    config = Config(schema_dir_path=directory)
    fetcher = ResourceFetcher(LOG, config)
    fetcher.parse_yaml(text, k8s=True)
    config.load_all(fetcher.sorted())
    secrets = SecretHandler(LOG, directory, directory, "0")
    ir = IR(config, file_checker=lambda path: True, secret_handler=secrets)
    envoy = EnvoyConfig.generate(ir).as_dict()
    names = {cluster.get("envoy_name"): name for name, cluster in ir.clusters.items()}
    for cluster in envoy["static_resources"]["clusters"]:
        host = port = None
        if "load_assignment" in cluster:
            [group] = cluster["load_assignment"]["endpoints"]
            [endpoint] = group["lb_endpoints"]
            address = endpoint["endpoint"]["address"]["socket_address"]
            host, port = address["address"], address["port_value"]
        if port == DIAGNOSTICS:
            continue
        tls = cluster.get("transport_socket", {}).get("typed_config")
        yield {
            "name": names[cluster["name"]],
            "host": host,
            "port": port,
            "tls": None if tls is None else files_of(tls["common_tls_context"], directory),
        }


def files_of(common, directory):
    [pair] = common.get("tls_certificates", [{}])
    sources = {**pair, **common.get("validation_context", {})}
    return {
        name: source["filename"] and source["filename"].removeprefix(directory)
        for name, source in sources.items()
    }


def main():
    with tempfile.TemporaryDirectory() as directory:
        for line in sys.stdin:
            request = json.loads(line)
            answer = {"id": request["id"]}
            try:
                answer["clusters"] = list(clusters_of(request["yaml"], directory))
            except Exception as error:  # Whatever it is, the gateway takes up no change any more.
                answer["failure"] = type(error).__name__
            print(json.dumps(answer), flush=True)


main()
