"""Follows snapshots of Kubernetes objects as the diagd of Emissary does, with its cache.

Reads one JSON snapshot from each line of its input, in the form in which Emissary's Go part sends it to diagd ("Kubernetes",
"Deltas"), and writes one JSON answer for each: {"diagnostics", "clusters"}. "diagnostics" is the part of
`/ambassador/v0/diag/?json=true` that is about TLS; "clusters" is what Envoy is given. The files of Secrets are written below
the directory that is the first argument. PYTHONPATH has the directory `python` of Emissary, and what it imports.
"""

import json
import logging
import os
import sys

os.environ.setdefault("AMBASSADOR_NAMESPACE", "emissary")
os.environ.setdefault("AMBASSADOR_ID", "default")
logging.disable(logging.CRITICAL)

from ambassador import IR, Cache, Config, Diagnostics, EnvoyConfig  # noqa: E402
from ambassador.diagnostics import EnvoyStats  # noqa: E402
from ambassador.fetch import ResourceFetcher  # noqa: E402
from ambassador.utils import SecretHandler  # noqa: E402

LOG = logging.getLogger("emissary")


class Request:
    headers = {}


def follow(text, directory, version, cache):
    config = Config(schema_dir_path=directory)
    fetcher = ResourceFetcher(LOG, config)
    fetcher.parse_watt(text)
    config.load_all(fetcher.sorted())
    _, is_reset, groups = IR.check_deltas(LOG, fetcher, cache)
    cache = Cache(LOG) if is_reset else cache
    secrets = SecretHandler(LOG, "snapshot", directory, str(version))
    ir = IR(config, secret_handler=secrets, invalidate_groups_for=groups, cache=cache)
    envoy = EnvoyConfig.generate(ir, cache=cache)
    diagnostics = Diagnostics(ir, envoy)
    shown = {**diagnostics.overview(Request, EnvoyStats()), **diagnostics.as_dict()}
    return cache, {
        "diagnostics": {key: shown[key] for key in ("tlscontexts", "cluster_info", "groups")},
        "clusters": envoy.as_dict()["static_resources"]["clusters"],
    }


def main():
    cache = Cache(LOG)
    for version, line in enumerate(sys.stdin):
        cache, answer = follow(line, sys.argv[1], version, cache)
        print(json.dumps(answer, default=str), flush=True)


main()
