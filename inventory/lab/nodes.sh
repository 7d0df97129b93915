#!/bin/sh
# What only this machine knows: node1, node2, ..., whether there is Grafana, how ssh reaches every host, and the
# lab's secrets. The hosts are containers, or virtual machines with LAB_DRIVER=vagrant.
cd "$(dirname "$(readlink -f "$0")")/../.." && exec python3 -m lab.inventory
