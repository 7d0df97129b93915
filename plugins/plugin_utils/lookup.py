# Copyright (c) The Fleetwatch authors
# SPDX-License-Identifier: MIT
"""What the lookups of the fleet share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible.plugins.lookup import LookupBase
from ansible_collections.fleetwatch.monitoring.plugins.plugin_utils.fleet import Fleet


class FleetLookup(LookupBase):  # type: ignore[misc] # ansible-core is not typed
    """A lookup with the option ``roles_path`` that answers from the inventory."""

    def fleet(self, variables: Mapping[str, Any], options: Mapping[str, Any]) -> Fleet:
        """Return the fleet that the lookup sees, after taking in the ``options`` of the call."""
        self.set_options(var_options=variables, direct=options)
        return Fleet.of(variables, self._loader, self.get_option("roles_path"))
