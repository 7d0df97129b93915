"""A strict JSON schema of what our dashboards use of Grafana's model; a key that is not here is a mistake.

Grafana takes nearly everything and then draws nothing: this finds a misspelt key or a word that is none.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Schema = dict[str, Any]

STRING: Schema = {"type": "string"}
TEXT: Schema = {"type": "string", "minLength": 1}
NUMBER: Schema = {"type": "number"}
COUNT: Schema = {"type": "integer", "minimum": 0}
BOOL: Schema = {"type": "boolean"}
STRINGS: Schema = {"type": "array", "items": TEXT}


def keys(required: Mapping[str, Any], optional: Mapping[str, Any] | None = None) -> Schema:
    """Return the schema of an object with these keys and no other."""
    return {
        "type": "object",
        "properties": {**required, **(optional or {})},
        "required": sorted(required),
        "additionalProperties": False,
    }


def one_of(*words: Any) -> Schema:
    return {"enum": list(words)}


def each(items: Schema, **more: Any) -> Schema:
    return {"type": "array", "items": items, **more}


PROMETHEUS = keys({"type": {"const": "prometheus"}, "uid": {"const": "${datasource}"}})
COLOUR = one_of("green", "yellow", "orange", "red", "blue", "purple", "text")
GRID = keys(
    {
        "h": {"type": "integer", "minimum": 1},
        "w": {"type": "integer", "minimum": 1, "maximum": 24},
        "x": {"type": "integer", "minimum": 0, "maximum": 23},
        "y": COUNT,
    }
)
LINK = keys(
    {
        "asDropdown": BOOL,
        "icon": STRING,
        "includeVars": BOOL,
        "keepTime": BOOL,
        "tags": STRINGS,
        "targetBlank": BOOL,
        "title": TEXT,
        "tooltip": STRING,
        "type": one_of("link", "dashboards"),
    },
    {"url": {"type": "string", "pattern": r"^(/d/|\$\{receiver(:raw)?\}/)"}},
)
DATA_LINK = keys(LINK["properties"])
"""The SDK has the same type for the links of panels as for those of dashboards; here the URL is needed."""
STEP = keys({"color": COLOUR, "value": {"type": ["number", "null"]}})
THRESHOLDS = keys(
    {
        "mode": {"const": "absolute"},
        "steps": {
            "type": "array",
            "minItems": 1,
            "prefixItems": [keys({"color": COLOUR, "value": {"type": "null"}})],
            "items": keys({"color": COLOUR, "value": NUMBER}),
        },
    }
)
RESULT = keys({"text": TEXT, "color": COLOUR, "index": COUNT})
MAPPING: Schema = {
    "oneOf": [
        keys(
            {
                "type": {"const": "value"},
                "options": {"type": "object", "minProperties": 1, "additionalProperties": RESULT},
            }
        ),
        keys(
            {
                "type": {"const": "range"},
                "options": keys({"from": NUMBER, "to": {"type": ["number", "null"]}, "result": RESULT}),
            }
        ),
    ]
}
COLOUR_MODE = keys({"mode": one_of("thresholds", "palette-classic-by-name", "palette-classic", "fixed")})
LEGEND = keys(
    {
        "calcs": each(one_of("lastNotNull", "max", "min", "mean", "sum")),
        "displayMode": one_of("table", "list"),
        "placement": one_of("bottom", "right"),
        "showLegend": {"const": True},
    },
    {"sortBy": TEXT, "sortDesc": BOOL},
)
TOOLTIP = keys({"mode": one_of("single", "multi"), "sort": one_of("asc", "desc", "none")})
REDUCE = keys(
    {"calcs": each(one_of("lastNotNull", "max", "min", "mean"), minItems=1), "fields": STRING, "values": BOOL}
)

CUSTOM = {
    "timeseries": keys(
        {},
        {
            "drawStyle": one_of("line", "bars"),
            "fillOpacity": NUMBER,
            "lineWidth": NUMBER,
            "showPoints": {"const": "never"},
            "stacking": keys({"mode": {"const": "normal"}}),
            "thresholdsStyle": keys({"mode": one_of("dashed", "off")}),
            "axisCenteredZero": BOOL,
        },
    ),
    "table": keys({}, {"align": {"const": "auto"}, "filterable": BOOL, "inspect": BOOL}),
    "heatmap": keys({}),
    "state-timeline": keys({}, {"fillOpacity": NUMBER, "lineWidth": NUMBER}),
}
SINGLE = {"orientation": one_of("auto", "horizontal", "vertical"), "reduceOptions": REDUCE}
OPTIONS = {
    "timeseries": keys({"legend": LEGEND, "tooltip": TOOLTIP}),
    "stat": keys(
        {
            **SINGLE,
            "colorMode": one_of("value", "background", "none"),
            "graphMode": one_of("none", "area"),
            "justifyMode": {"const": "auto"},
            "percentChangeColorMode": {"const": "standard"},
            "showPercentChange": BOOL,
            "textMode": one_of("auto", "name", "value", "value_and_name"),
            "wideLayout": BOOL,
        }
    ),
    "gauge": keys(
        {
            **SINGLE,
            "minVizHeight": COUNT,
            "minVizWidth": COUNT,
            "showThresholdLabels": BOOL,
            "showThresholdMarkers": BOOL,
            "sizing": {"const": "auto"},
        }
    ),
    "bargauge": keys(
        {
            **SINGLE,
            "displayMode": one_of("basic", "gradient", "lcd"),
            "legend": LEGEND,
            "maxVizHeight": COUNT,
            "minVizHeight": COUNT,
            "minVizWidth": COUNT,
            "namePlacement": {"const": "auto"},
            "showUnfilled": BOOL,
            "sizing": {"const": "auto"},
            "valueMode": {"const": "color"},
        }
    ),
    "table": keys(
        {
            "cellHeight": {"const": "sm"},
            "footer": keys({"countRows": BOOL, "reducer": STRINGS, "show": BOOL}),
            "frameIndex": COUNT,
            "showHeader": {"const": True},
            "showTypeIcons": BOOL,
        },
        {"sortBy": each(keys({"displayName": TEXT, "desc": BOOL}))},
    ),
    "heatmap": keys(
        {
            "calculate": {"const": False},
            "cellGap": COUNT,
            "color": keys(
                {
                    "exponent": NUMBER,
                    "fill": TEXT,
                    "mode": {"const": "scheme"},
                    "reverse": BOOL,
                    "scheme": TEXT,
                    "steps": COUNT,
                }
            ),
            "exemplars": keys({"color": TEXT}),
            "filterValues": keys({"le": NUMBER}),
            "legend": keys({"show": {"const": True}}),
            "selectionMode": {"const": "x"},
            "showValue": {"const": "auto"},
            "tooltip": keys({"mode": {"const": "single"}, "yHistogram": BOOL}),
            "yAxis": keys({"unit": TEXT, "decimals": COUNT}),
        }
    ),
    "state-timeline": keys(
        {
            "alignValue": {"const": "left"},
            "legend": LEGEND,
            "mergeValues": BOOL,
            "rowHeight": NUMBER,
            "showValue": one_of("never", "auto"),
            "tooltip": TOOLTIP,
        },
        {"perPage": COUNT},
    ),
    "text": keys({"content": TEXT, "mode": one_of("markdown", "html")}),
}
PROPERTIES: dict[str, Schema] = {
    "unit": TEXT,
    "decimals": COUNT,
    "min": NUMBER,
    "max": NUMBER,
    "noValue": TEXT,
    "thresholds": THRESHOLDS,
    "mappings": each(MAPPING),
    "links": each(DATA_LINK),
    "color": COLOUR_MODE,
    "custom.cellOptions": keys(
        {"type": one_of("color-background", "color-text", "gauge", "auto")},
        {"mode": one_of("basic", "gradient"), "valueDisplayMode": TEXT},
    ),
    "custom.width": COUNT,
}
OVERRIDE = keys(
    {
        "matcher": keys({"id": {"const": "byName"}, "options": TEXT}),
        "properties": {
            "type": "array",
            "items": {
                "oneOf": [keys({"id": {"const": name}, "value": value}) for name, value in PROPERTIES.items()]
            },
        },
    }
)
TRANSFORMATIONS: dict[str, Schema] = {
    "joinByField": keys({"byField": TEXT, "mode": {"const": "outer"}}),
    "merge": keys({}),
    "filterFieldsByName": keys({"include": keys({"names": each(TEXT, minItems=1)})}),
    "organize": keys(
        {
            "excludeByName": {"type": "object", "additionalProperties": BOOL},
            "indexByName": {"type": "object", "additionalProperties": COUNT},
            "renameByName": {"type": "object", "additionalProperties": TEXT},
        }
    ),
}
TARGET = keys(
    {
        "datasource": PROMETHEUS,
        "editorMode": {"const": "code"},
        "expr": TEXT,
        "format": one_of("time_series", "table", "heatmap"),
        "instant": BOOL,
        "legendFormat": TEXT,
        "range": BOOL,
        "refId": {"type": "string", "pattern": "^[A-Z]$"},
    },
    {"exemplar": BOOL},
)


def panel(kind: str) -> Schema:
    """Return the schema of one kind of panel."""
    always = {
        "datasource": PROMETHEUS,
        "description": TEXT,
        "gridPos": GRID,
        "id": {"type": "integer", "minimum": 1},
        "options": OPTIONS[kind],
        "repeatDirection": {"const": "h"},
        "title": TEXT,
        "transparent": BOOL,
        "type": {"const": kind},
    }
    if kind == "text":
        return keys(always)
    defaults = keys(
        {"decimals": COUNT, "thresholds": THRESHOLDS, "unit": TEXT},
        {
            "color": COLOUR_MODE,
            "custom": CUSTOM.get(kind, keys({})),
            "links": each(DATA_LINK),
            "mappings": each(MAPPING),
            "max": NUMBER,
            "min": NUMBER,
            "noValue": TEXT,
        },
    )
    return keys(
        {
            **always,
            "fieldConfig": keys({"defaults": defaults, "overrides": each(OVERRIDE)}),
            "targets": each(TARGET, minItems=1),
        },
        {
            "transformations": {
                "type": "array",
                "items": {
                    "oneOf": [
                        keys({"id": {"const": name}, "options": options})
                        for name, options in TRANSFORMATIONS.items()
                    ]
                },
            }
        },
    )


def by_type(schemas: Mapping[str, Schema]) -> Schema:
    """Return a schema that tells apart by the key ``type``, so that its errors are those of the one meant."""
    return {
        "type": "object",
        "required": ["type"],
        "properties": {"type": {"enum": list(schemas)}},
        "allOf": [
            {"if": {"properties": {"type": {"const": kind}}}, "then": schema}
            for kind, schema in schemas.items()
        ],
    }


PANELS = {kind: panel(kind) for kind in OPTIONS}
ROW = keys(
    {
        "collapsed": BOOL,
        "gridPos": GRID,
        "id": {"type": "integer", "minimum": 1},
        "panels": each(by_type(PANELS)),
        "title": TEXT,
        "type": {"const": "row"},
    }
)
VARIABLE = {
    "allowCustomValue": BOOL,
    "auto": BOOL,
    "auto_count": COUNT,
    "auto_min": TEXT,
    "includeAll": BOOL,
    "label": TEXT,
    "multi": BOOL,
    "name": {"type": "string", "pattern": r"^[a-z_]+$"},
    "skipUrlSync": {"const": False},
}
VARIABLES = {
    "datasource": keys({**VARIABLE, "type": {"const": "datasource"}, "query": {"const": "prometheus"}}),
    "query": keys(
        {
            **VARIABLE,
            "datasource": PROMETHEUS,
            "definition": TEXT,
            "query": {"type": "string", "pattern": r"^label_values\(.+, \w+\)$"},
            "refresh": {"const": 2},
            "sort": {"const": 7},
            "type": {"const": "query"},
        },
        {
            "allValue": {"const": ".+"},
            "current": keys({"text": STRINGS, "value": STRINGS}),
            "hide": {"const": 2},
        },
    ),
}
ANNOTATION = keys(
    {
        "builtIn": {"const": 0},
        "datasource": PROMETHEUS,
        "enable": BOOL,
        "expr": TEXT,
        "hide": BOOL,
        "iconColor": COLOUR,
        "name": TEXT,
        "step": TEXT,
        "tagKeys": TEXT,
        "textFormat": STRING,
        "titleFormat": TEXT,
        "useValueForTime": BOOL,
    }
)
DASHBOARD: Schema = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    **keys(
        {
            "annotations": keys({"list": each(ANNOTATION)}),
            "description": TEXT,
            "editable": {"const": False},
            "fiscalYearStartMonth": COUNT,
            "graphTooltip": {"const": 1},
            "links": each(LINK),
            "panels": each(by_type({**PANELS, "row": ROW}), minItems=1),
            "refresh": {"type": "string", "pattern": "^[0-9]+[sm]$"},
            "schemaVersion": {"const": 42},
            "tags": {"type": "array", "items": TEXT, "contains": {"const": "fleetwatch"}},
            "templating": keys({"list": each(by_type(VARIABLES), minItems=1)}),
            "time": keys(
                {"from": {"type": "string", "pattern": "^now-[0-9]+[mhd]$"}, "to": {"const": "now"}}
            ),
            "timezone": {"const": "browser"},
            "title": TEXT,
            "uid": {"type": "string", "pattern": "^fleetwatch-[a-z-]{1,29}$"},
        }
    ),
}
