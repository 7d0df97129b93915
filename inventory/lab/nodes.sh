#!/bin/sh
# What only this machine knows: node1, node2, ..., whether there is Grafana, how ssh reaches every container, and the lab's secrets.
cd "$(dirname "$0")/../.." && exec python3 -m lab.inventory
