#!/usr/bin/env bash
# Writes NAME.nft.json beside every NAME.nft of examples/, test/explain/ and test/tcam/ by the installed nft, in a
# network namespace of its own.
set -euo pipefail
cd "$(dirname "$0")/.."

for text in examples/*.nft test/explain/*.nft test/tcam/*.nft; do
  export text
  unshare --map-root-user --net bash -euc '
    ip link add eth0 type veth peer name eth0-peer
    nft -f "$text"
    nft -j list ruleset
  ' | python3 -c '
import json, sys
objects = []
for item in json.load(sys.stdin)["nftables"]:
    chain = item.get("chain")
    # nft 1.0.6 leaves the device of an ingress chain out of its JSON; newer ones print it.
    if chain and chain.get("hook") == "ingress":
        chain.setdefault("dev", "eth0")
    objects.append(json.dumps(item))
print("{ \"nftables\": [\n  " + ",\n  ".join(objects) + "\n] }")
' > "$text.json"
done
