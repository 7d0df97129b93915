"""The lab on real virtual machines: what containers cannot show. Run by ``make test-vagrant`` alone."""
