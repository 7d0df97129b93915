"""The house style: what all dashboards share, as a few functions over Grafana's SDK.

A dashboard is rows of panels, and a panel is one line of thought: title, what it tells, queries, unit.
Colours, sizes, legends, variables, links and annotations follow::

    def dashboards() -> list[Dashboard]:
        return [
            dashboard(
                "fleetwatch-example",
                "Example",
                "How the example fares.",
                row(
                    "Requests",
                    stat("Failing", "Requests that failed.", query('sum(…{job=~"$job"})'), unit=units.Short),
                    timeseries("Requests", "By code.", query("…", "{{code}}"), unit=units.RequestsPerSecond),
                ),
                variables=[job_variable("example_build_info"), host_variable("example_build_info")],
            )
        ]

Widths are minimal: a line of panels is stretched to the grid's 24 columns.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict, Unpack

from grafana_foundation_sdk.builders import bargauge as bargauge_builder
from grafana_foundation_sdk.builders import common as common_builder
from grafana_foundation_sdk.builders import dashboard as builder
from grafana_foundation_sdk.builders import gauge as gauge_builder
from grafana_foundation_sdk.builders import heatmap as heatmap_builder
from grafana_foundation_sdk.builders import prometheus
from grafana_foundation_sdk.builders import stat as stat_builder
from grafana_foundation_sdk.builders import statetimeline as statetimeline_builder
from grafana_foundation_sdk.builders import table as table_builder
from grafana_foundation_sdk.builders import text as text_builder
from grafana_foundation_sdk.builders import timeseries as timeseries_builder
from grafana_foundation_sdk.builders.dashboard import DashboardLink
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common, units
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models import heatmap as heatmap_model
from grafana_foundation_sdk.models.dashboard import Dashboard, DynamicConfigValue, RangeMap, ValueMap
from grafana_foundation_sdk.models.prometheus import PromQueryFormat, QueryEditorMode

from .finish import finish, ref_id

__all__ = [
    "BLUE",
    "CHOSEN",
    "GREEN",
    "GREY",
    "LOADED",
    "LOGS_TAG",
    "ORANGE",
    "RED",
    "UP_DOWN",
    "YELLOW",
    "Column",
    "Dashboard",
    "DashboardLink",
    "Panel",
    "Query",
    "Row",
    "Thresholds",
    "above",
    "bargauge",
    "below",
    "column",
    "dashboard",
    "dashboard_url",
    "gauge",
    "heatmap",
    "host_link",
    "host_variable",
    "job_variable",
    "link",
    "mapping",
    "markdown",
    "page_link",
    "plain",
    "process_row",
    "quantile",
    "query",
    "rate",
    "render",
    "row",
    "stat",
    "table",
    "timeline",
    "timeseries",
    "units",
    "variable",
]

TAG = "fleetwatch"
"""Every dashboard has it; the menu of dashboards lists what has it."""
LOGS_TAG = "fleetwatch-logs"
"""Every dashboard links to the dashboards that have this tag, with its variables and time.

A link to a tag that nothing has is not drawn, so there is no dead link where no logs are kept.
"""
DATASOURCE = common.DataSourceRef(type_val="prometheus", uid="${datasource}")

GREEN, YELLOW, ORANGE, RED, BLUE, GREY = "green", "yellow", "orange", "red", "blue", "text"
"""Green is well, orange deserves a look, red needs a hand; blue and grey judge nothing."""

CHOSEN = 'job=~"$job",host=~"$host"'
"""Matchers of the chosen jobs and hosts, for a dashboard with both variables."""

DECIMALS: Mapping[str, int] = {
    units.Short: 0,
    units.NoUnit: 0,
    units.Percent: 1,
    units.PercentUnit: 1,
    units.Seconds: 2,
    units.DurationSeconds: 0,
    units.DateTimeFromNow: 0,
    units.DatetimeISO: 0,
    units.String: 0,
    units.BytesIEC: 1,
    units.BytesPerSecondIEC: 1,
    units.BytesPerSecondSI: 1,
    units.BitsPerSecondSI: 1,
}
"""Decimals by unit, where a panel does not say; any other unit has two."""

Panel = Builder[model.Panel]
Variable = Builder[model.VariableModel]
Thresholds = Sequence[tuple[str, float | None]]
"""Colours and the values at which they begin; the first has none."""


class Look(TypedDict, total=False):
    """What every panel may set besides title, description, queries and unit."""

    decimals: int
    thresholds: Thresholds
    mappings: list[ValueMap] | list[RangeMap]
    minimum: float
    maximum: float
    links: Sequence[Builder[model.DashboardLink]]
    width: int
    height: int
    no_value: str


@dataclass(frozen=True)
class Query:
    """PromQL and the name of its series."""

    expr: str
    legend: str
    exemplars: bool = False
    """Whether single observations are drawn too, where Prometheus keeps them; they lead to traces."""


@dataclass(frozen=True)
class Row:
    """A titled row of panels; a collapsed one asks nothing before it is opened."""

    title: str
    panels: tuple[Panel, ...]
    collapsed: bool = False


@dataclass(frozen=True)
class Column:
    """A column of a table: a label's name, or a query whose value it shows."""

    source: str | Query
    title: str
    unit: str = units.String
    look: Look | None = None
    width: int | None = None
    cell: str | None = None


def query(expr: str, legend: str = "{{host}}", *, exemplars: bool = False) -> Query:
    """Return a query; its text may be spread over lines."""
    return Query(" ".join(expr.split()), legend, exemplars)


def quantile(share: float, histogram: str, matchers: str = CHOSEN, by: str = "") -> str:
    """Return the expression of the value that a share of a histogram's observations is below."""
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({share:g}, {rate(f'{histogram}_bucket', matchers, labels)})"


def rate(metric: str, matchers: str = CHOSEN, by: str = "host") -> str:
    """Return the expression of how fast a counter grows each second, summed by labels."""
    return f"sum by ({by}) (rate({metric}{{{matchers}}}[$__rate_interval]))"


def row(title: str, *panels: Panel, collapsed: bool = False) -> Row:
    """Return a row."""
    return Row(title, panels, collapsed)


def above(*, orange: float | None = None, red: float | None = None) -> Thresholds:
    """Return thresholds of a value that is well when low: orange and red begin at these values."""
    return [(GREEN, None), *((colour, at) for colour, at in ((ORANGE, orange), (RED, red)) if at is not None)]


def below(*, orange: float | None = None, red: float | None = None) -> Thresholds:
    """Return thresholds of a value that is well when high: orange and red lie below these values."""
    steps: list[tuple[str, float | None]] = []
    if red is not None:
        steps.append((RED, None))
    if orange is not None:
        steps.append((ORANGE, red))
        return [*steps, (GREEN, orange)]
    return [*steps, (GREEN, red)]


def plain(colour: str = BLUE) -> Thresholds:
    """Return thresholds that judge nothing: one colour for every value."""
    return [(colour, None)]


def mapping(names: Mapping[float | str, tuple[str, str]]) -> list[ValueMap]:
    """Return mappings that show values as words: value -> (word, colour)."""
    return [
        ValueMap(
            {
                value if isinstance(value, str) else f"{value:g}": model.ValueMappingResult(
                    text=word, color=colour, index=index
                )
                for index, (value, (word, colour)) in enumerate(names.items())
            }
        )
    ]


def ranges(names: Mapping[float, tuple[str, str]]) -> list[RangeMap]:
    """Return mappings that show ranges of values as words: where a range begins -> (word, colour)."""
    ends = [*list(names)[1:], None]
    return [
        RangeMap(
            model.DashboardRangeMapOptions(
                from_val=begin,
                to=None if end is None else end - 1e-6,  # both ends belong to a range
                result=model.ValueMappingResult(text=word, color=colour, index=index),
            )
        )
        for index, ((begin, (word, colour)), end) in enumerate(zip(names.items(), ends, strict=True))
    ]


UP_DOWN = mapping({0: ("down", RED), 1: ("up", GREEN)})
LOADED = mapping({0: ("refused", RED), 1: ("loaded", GREEN)})


def link(title: str, url: str, *, new_tab: bool = False) -> DashboardLink:
    """Return a link from a value or series; the URL may use ``${__field.labels.host}`` and the like."""
    return DashboardLink(title).type(model.DashboardLinkType.LINK).url(url).target_blank(new_tab)


def page_link(title: str, url: str) -> Builder[model.DashboardLink]:
    """Return a link from a whole dashboard to a page that is none; the URL may have variables."""
    return link(title, url, new_tab=True).icon("external link")


def dashboard_url(uid: str, **variables: str) -> str:
    """Return the URL of another dashboard, with variables set, and the data source and time kept."""
    values = "".join(f"&var-{name}={value}" for name, value in variables.items())
    return f"/d/{uid}?${{datasource:queryparam}}{values}&${{__url_time_range}}"


def host_link(*, field: str | None = None) -> Builder[model.DashboardLink]:
    """Return the link to the host of a series, or of a table's row (``field``: its column with the host)."""
    host = f'${{__data.fields["{field}"]}}' if field else "${__field.labels.host}"
    return link("This host", dashboard_url("fleetwatch-host", host=host))


def variable(  # noqa: PLR0913 - each with a default
    name: str,
    label: str,
    values: str,
    *,
    multi: bool = True,
    all_value: str | None = ".+",
    hidden: bool = False,
) -> Variable:
    """Return a variable whose values Prometheus knows.

    Args:
        name: as in ``$name``.
        label: shown before it.
        values: e.g. ``label_values(up, job)``.
        multi: whether several may be chosen; all are at first.
        all_value: what all of them are in an expression: a short one serves many values, ``None`` names each.
        hidden: whether it is not shown, since nobody needs to choose.

    """
    result = (
        builder.QueryVariable(name)
        .label(label)
        .query(values)
        .definition(values)
        .datasource(DATASOURCE)
        .refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(model.VariableSort.NATURAL_ASC)
    )
    if hidden:
        result.hide(model.VariableHide.HIDE_VARIABLE)
    if multi:
        everything = model.VariableOption(text=["All"], value=["$__all"])
        result.multi(True).include_all(True).current(everything)
        if all_value:
            result.all_value(all_value)
    return result


def job_variable(metric: str) -> Variable:
    """Return the variable ``job``: the jobs that have a metric.

    All of them are named in the expressions, so that metrics which every program has (``process_…``)
    are those of these jobs only.
    """
    return variable("job", "Job", f"label_values({metric}, job)", all_value=None)


def host_variable(metric: str, *, multi: bool = True, job: bool = True) -> Variable:
    """Return the variable ``host``: the hosts with a metric, and of the chosen jobs if ``job``."""
    selector = '{job=~"$job"}' if job else ""
    return variable("host", "Host", f"label_values({metric}{selector}, host)", multi=multi)


def stat(  # noqa: D417 - the others are those of every panel
    title: str, description: str, *queries: Query, unit: str, sparkline: bool = False, **look: Unpack[Look]
) -> Panel:
    """Return a panel with one large value for each series, coloured by its thresholds.

    Args:
        sparkline: whether it draws the values over time behind.

    """
    panel = (
        stat_builder.Panel()
        .graph_mode(common.BigValueGraphMode.AREA if sparkline else common.BigValueGraphMode.NONE)
        .color_mode(common.BigValueColorMode.VALUE)
        .reduce_options(common_builder.ReduceDataOptions().calcs(["lastNotNull"]))
        .text_mode(common.BigValueTextMode.AUTO)
    )
    return _panel(panel, title, description, queries, unit, look, width=3, height=4, instant=not sparkline)


def gauge(title: str, description: str, *queries: Query, unit: str, **look: Unpack[Look]) -> Panel:
    """Return a panel with a dial for each series; needs a minimum and maximum."""
    panel = gauge_builder.Panel().reduce_options(common_builder.ReduceDataOptions().calcs(["lastNotNull"]))
    return _panel(panel, title, description, queries, unit, look, width=4, height=6, instant=True)


def bargauge(title: str, description: str, *queries: Query, unit: str, **look: Unpack[Look]) -> Panel:
    """Return a panel with a bar for each series."""
    panel = (
        bargauge_builder.Panel()
        .orientation(common.VizOrientation.HORIZONTAL)
        .display_mode(common.BarGaugeDisplayMode.BASIC)
        .reduce_options(common_builder.ReduceDataOptions().calcs(["lastNotNull"]))
    )
    return _panel(panel, title, description, queries, unit, look, width=8, height=8, instant=True)


def timeseries(  # noqa: D417 - the others are those of every panel
    title: str,
    description: str,
    *queries: Query,
    unit: str,
    stacked: bool = False,
    bars: bool = False,
    **look: Unpack[Look],
) -> Panel:
    """Return a panel with values over time; thresholds are drawn as lines.

    Args:
        stacked: for parts of a whole.
        bars: for numbers of events, which are no line.

    """
    panel = (
        timeseries_builder.Panel()
        .line_width(1)
        .fill_opacity(30 if stacked or bars else 10)
        .show_points(common.VisibilityMode.NEVER)
        .draw_style(common.GraphDrawStyle.BARS if bars else common.GraphDrawStyle.LINE)
        .color_scheme(builder.FieldColor().mode(model.FieldColorModeId.PALETTE_CLASSIC_BY_NAME))
        .legend(
            common_builder.VizLegendOptions()
            .display_mode(common.LegendDisplayMode.TABLE)
            .placement(common.LegendPlacement.BOTTOM)
            .calcs(["lastNotNull", "max"])
            .show_legend(True)
        )
        .tooltip(
            common_builder.VizTooltipOptions()
            .mode(common.TooltipDisplayMode.MULTI)
            .sort(common.SortOrder.DESCENDING)
        )
    )
    if stacked:
        panel.stacking(common_builder.StackingConfig().mode(common.StackingMode.NORMAL))
    if "thresholds" in look:
        panel.thresholds_style(
            common_builder.GraphThresholdsStyleConfig().mode(common.GraphThresholdsStyleMode.DASHED)
        )
    return _panel(panel, title, description, queries, unit, look, width=8, height=8)


def timeline(title: str, description: str, *queries: Query, **look: Unpack[Look]) -> Panel:
    """Return a panel with a state over time as a bar for each series; needs mappings."""
    panel = (
        statetimeline_builder.Panel()
        .show_value(common.VisibilityMode.NEVER)
        .legend(
            common_builder.VizLegendOptions()
            .display_mode(common.LegendDisplayMode.LIST)
            .placement(common.LegendPlacement.BOTTOM)
            .show_legend(True)
        )
    )
    return _panel(panel, title, description, queries, units.NoUnit, look, width=8, height=8)


def heatmap(title: str, description: str, *queries: Query, unit: str, **look: Unpack[Look]) -> Panel:
    """Return a panel with a histogram over time; its query is the sum by ``le``, named ``{{le}}``."""
    panel = (
        heatmap_builder.Panel()
        .color(
            heatmap_builder.HeatmapColorOptions()
            .mode(heatmap_model.HeatmapColorMode.SCHEME)
            .scheme("Blues")
            .fill("dark-blue")
            .exponent(0.5)
            .steps(32)
        )
        .y_axis(heatmap_builder.YAxisConfig().unit(unit).decimals(look.get("decimals", _decimals(unit))))
        .tooltip(heatmap_builder.HeatmapTooltip().mode(common.TooltipDisplayMode.SINGLE).y_histogram(True))
    )
    return _panel(
        panel, title, description, queries, unit, look, width=8, height=8, form=PromQueryFormat.HEATMAP
    )


def markdown(title: str, description: str, content: str, *, width: int = 8, height: int = 4) -> Panel:
    """Return a panel with text, such as what to do first."""
    return (
        text_builder.Panel()
        .title(title)
        .description(description)
        .content(content)
        .span(width)
        .height(height)
        .datasource(DATASOURCE)
    )


def column(
    source: str | Query,
    title: str,
    *,
    unit: str = units.String,
    column_width: int | None = None,
    cell: str | None = None,
    **look: Unpack[Look],
) -> Column:
    """Return a column of a table.

    Args:
        source: the name of a label, or a query.
        title: of the column.
        unit: of the query's values.
        column_width: in pixels; by content otherwise.
        cell: how a value is drawn: ``color-background``, ``color-text`` or ``gauge``; coloured by thresholds
            or mappings it is ``color-background`` otherwise.

    """
    return Column(source, title, unit, look, column_width, cell)


def table(  # noqa: PLR0913 - each with a default
    title: str,
    description: str,
    *columns: Column,
    join: str | None = None,
    sort: str | None = None,
    descending: bool = True,
    width: int = 24,
    height: int = 10,
) -> Panel:
    """Return a table of the newest values, a row for each set of labels.

    Args:
        title: of the panel.
        description: what it tells.
        columns: from left to right; all queries have the labels that are columns.
        join: the label that joins the queries; without it, rows with the same labels are one.
        sort: title of the column to sort by.
        descending: whether the greatest value is first.
        width: in columns of the grid.
        height: in lines of the grid.

    """
    panel = table_builder.Panel().filterable(True)
    sources = [entry for entry in columns if isinstance(entry.source, Query)]
    # So Prometheus' data source names the values.
    values = {
        entry.title: f"Value #{ref_id(index)}" if len(sources) > 1 else "Value"
        for index, entry in enumerate(sources)
    }
    fields = [values[entry.title] if isinstance(entry.source, Query) else entry.source for entry in columns]
    if join:
        panel.with_transformation(_transformation("joinByField", byField=join, mode="outer"))
    elif len(sources) > 1:
        panel.with_transformation(_transformation("merge"))
    panel.with_transformation(_transformation("filterFieldsByName", include={"names": fields}))
    panel.with_transformation(
        _transformation(
            "organize",
            excludeByName={},
            indexByName={field: index for index, field in enumerate(fields)},
            renameByName={field: entry.title for field, entry in zip(fields, columns, strict=True)},
        )
    )
    for entry in columns:
        panel.override_by_name(entry.title, _properties(entry))
    if sort:
        if sort not in {entry.title for entry in columns}:
            raise ValueError(f"table {title!r}: no column {sort!r} to sort by")
        panel.sort_by([common_builder.TableSortByFieldState().display_name(sort).desc(descending)])
    look = Look(width=width, height=height)
    queries = [entry.source for entry in sources if isinstance(entry.source, Query)]
    return _panel(
        panel, title, description, queries, units.String, look, width=width, height=height, instant=True,
        form=PromQueryFormat.TABLE,
    )  # fmt: skip


def process_row() -> Row:
    """Return the row of what every program uses: memory, processor, files."""
    files = [f"max by (host, job) (process_{part}_fds{{{CHOSEN}}})" for part in ("open", "max")]
    return row(
        "Process",
        timeseries(
            "Memory",
            "Memory that the process holds.",
            query(f"sum by (host, job) (process_resident_memory_bytes{{{CHOSEN}}})", "{{job}} {{host}}"),
            unit=units.BytesIEC,
            minimum=0,
            links=[host_link()],
        ),
        timeseries(
            "CPU",
            "Processor cores in use.",
            query(rate("process_cpu_seconds_total", by="host, job"), "{{job}} {{host}}"),
            unit=units.Short,
            decimals=2,
            minimum=0,
            links=[host_link()],
        ),
        timeseries(
            "Open files",
            "Open file descriptors, as a share of the limit.",
            query(" / ".join(files), "{{job}} {{host}}"),
            unit=units.PercentUnit,
            thresholds=above(orange=0.7, red=0.9),
            minimum=0,
            links=[host_link()],
        ),
    )


def dashboard(  # noqa: PLR0913 - each with a default
    uid: str,
    title: str,
    description: str,
    *rows: Row,
    variables: Sequence[Variable] = (),
    links: Sequence[Builder[model.DashboardLink]] = (),
    scope: str | None = None,
    restarts: str | None = None,
    reloads: str | None = None,
    tags: Sequence[str] = (),
    time: str = "now-3h",
    refresh: str = "30s",
) -> Dashboard:
    """Return a dashboard.

    Args:
        uid: name of its file and of its URL, ``/d/<uid>``.
        title: without the project's name.
        description: what it answers.
        rows: from top to bottom.
        variables: besides ``datasource``, which every dashboard has.
        links: besides those to the other dashboards and to the logs.
        scope: label matchers of the alerts that are annotated; those of the variables otherwise.
        restarts: label matchers of the programs whose restarts are annotated; as ``scope`` otherwise.
        reloads: metric with the time of the last reload of the configuration, annotated too.
        tags: besides the one that all have, such as ``LOGS_TAG``.
        time: what it shows at first, until now.
        refresh: how often it asks again.

    """
    names = {variable.build().name for variable in variables}
    if scope is None:
        scope = ",".join(_scope(names))
    result = (
        builder.Dashboard(title)
        .uid(uid)
        .description(description)
        .tags([TAG, *tags])
        .timezone("browser")
        .readonly()
        .tooltip(model.DashboardCursorSync.CROSSHAIR)
        .time(time, "now")
        .refresh(refresh)
        .with_variable(builder.DatasourceVariable("datasource").label("Data source").type("prometheus"))
    )
    for entry in variables:
        result.with_variable(entry)
    where = scope if restarts is None else restarts
    for annotation in _annotations(scope, where, reloads, by_host="host" in names):
        result.annotation(annotation)
    for entry_link in (
        *links,
        _menu("Dashboards", TAG, dropdown=True),
        _menu("Logs", LOGS_TAG, dropdown=False),
    ):
        result.link(entry_link)
    for entry_row in rows:
        header = builder.Row(entry_row.title)
        if entry_row.collapsed:
            for panel in entry_row.panels:
                header.with_panel(panel)
        result.with_row(header)
        if not entry_row.collapsed:
            for panel in entry_row.panels:
                result.with_panel(panel)
    return result.build()


def render(dashboard: Dashboard) -> str:
    """Return the finished JSON of a dashboard, always the same bytes for the same dashboard."""
    encoded = JSONEncoder(ensure_ascii=False).encode(dashboard)
    return json.dumps(finish(json.loads(encoded)), indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def _decimals(unit: str) -> int:
    return DECIMALS.get(unit, 2)


def _thresholds(steps: Thresholds) -> builder.ThresholdsConfig:
    return (
        builder.ThresholdsConfig()
        .mode(model.ThresholdsMode.ABSOLUTE)
        .steps([model.Threshold(value=value, color=colour) for colour, value in steps])
    )


def _panel(  # noqa: PLR0913, PLR0917 - what the kinds of panels share
    panel: Any,
    title: str,
    description: str,
    queries: Sequence[Query],
    unit: str,
    look: Look,
    *,
    width: int,
    height: int,
    instant: bool = False,
    form: PromQueryFormat = PromQueryFormat.TIME_SERIES,
) -> Panel:
    """Set what all panels have; the SDK's builders of panels share these methods, but no type."""
    panel.title(title).description(description).datasource(DATASOURCE).unit(unit)
    panel.decimals(look.get("decimals", _decimals(unit)))
    panel.thresholds(_thresholds(look.get("thresholds", plain())))
    panel.span(look.get("width", width)).height(look.get("height", height))
    if "mappings" in look:
        panel.mappings(look["mappings"])
    if "minimum" in look:
        panel.min(look["minimum"])
    if "maximum" in look:
        panel.max(look["maximum"])
    if "links" in look:
        panel.data_links(list(look["links"]))
    if "no_value" in look:
        panel.no_value(look["no_value"])
    for entry in queries:
        target = prometheus.Dataquery().expr(entry.expr).legend_format(entry.legend)
        target.format(form).editor_mode(QueryEditorMode.CODE).datasource(DATASOURCE)
        if entry.exemplars:
            target.exemplar(True)
        panel.with_target(target.instant() if instant else target.range())
    result: Panel = panel
    return result


def _transformation(name: str, **options: Any) -> model.DataTransformerConfig:
    return model.DataTransformerConfig(id_val=name, options=options)


def _properties(entry: Column) -> list[DynamicConfigValue]:
    """Return how a table draws a column."""
    look = entry.look or Look()
    properties: dict[str, Any] = {}
    if isinstance(entry.source, Query):
        properties["unit"] = entry.unit
        properties["decimals"] = look.get("decimals", _decimals(entry.unit))
    if "thresholds" in look:
        properties["thresholds"] = _thresholds(look["thresholds"]).build()
    cell = entry.cell or ("color-background" if {"thresholds", "mappings"} & look.keys() else None)
    if cell:
        properties["custom.cellOptions"] = {"mode": "basic", "type": cell}
        properties["color"] = {"mode": "thresholds"}
    for name, key in (
        ("mappings", "mappings"),
        ("minimum", "min"),
        ("maximum", "max"),
        ("no_value", "noValue"),
    ):
        if name in look:
            properties[key] = look[name]  # type: ignore[literal-required] # the names above
    if "links" in look:
        properties["links"] = [one.build() for one in look["links"]]
    if entry.width:
        properties["custom.width"] = entry.width
    return [DynamicConfigValue(id_val=name, value=value) for name, value in properties.items()]


def _scope(variables: set[str]) -> list[str]:
    """Return the matchers for what concerns the chosen jobs and hosts; a whole job's alert has no host."""
    if "job" in variables:
        return ['job=~"$job"', *(['host=~"$host|"'] if "host" in variables else [])]
    return ['host=~"$host"'] if "host" in variables else []


def _annotations(
    scope: str, restarts: str, reloads: str | None, *, by_host: bool
) -> list[Builder[model.AnnotationQuery]]:
    labels = "job, host" if by_host else "job"
    place = "{{job}} on {{host}}" if by_host else "{{job}}"
    more = f",{scope}" if scope else ""
    found = [
        _annotation(
            "Alerts",
            RED,
            f'ALERTS{{alertstate="firing",severity=~"critical|warning"{more}}}',
            "{{alertname}} ({{severity}}) {{host}}",
        ),
        _annotation(
            "Restarts",
            BLUE,
            f"sum by ({labels}) (changes(process_start_time_seconds{{{restarts}}}[$__rate_interval])) > 0",
            f"Restart of {place}",
        ),
    ]
    if reloads:
        found.append(
            _annotation(
                "Configurations",
                BLUE,
                f"sum by ({labels}) (changes({reloads}{{{restarts}}}[$__rate_interval])) > 0",
                f"New configuration of {place}",
            )
        )
    return found


def _annotation(name: str, colour: str, expr: str, title: str) -> Builder[model.AnnotationQuery]:
    return (
        builder.AnnotationQuery()
        .name(name)
        .datasource(DATASOURCE)
        .enable(True)
        .icon_color(colour)
        .expr(expr)
        .title_format(title)
        .text_format("")
        .tag_keys("severity,job,host")
        .step("60s")
        .use_value_for_time(False)
    )


def _menu(title: str, tag: str, *, dropdown: bool) -> Builder[model.DashboardLink]:
    """Return the link to all dashboards with a tag; logs keep the variables, since they have the same."""
    return (
        builder.DashboardLink(title)
        .type(model.DashboardLinkType.DASHBOARDS)
        .tags([tag])
        .as_dropdown(dropdown)
        .include_vars(not dropdown)
        .keep_time(True)
        .icon("external link")
    )
