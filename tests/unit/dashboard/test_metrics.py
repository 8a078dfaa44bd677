"""Triton's counters as rates: from its Prometheus page, as a server printed it, and by gRPC."""

from __future__ import annotations

import pytest
from tritonclient.grpc import service_pb2

from stlab_dashboard.metrics import (
    Counters,
    rates,
    read_metrics_page,
    read_statistics,
)

PAGE = """\
# HELP nv_inference_request_success Number of successful inference requests, all batch sizes
# TYPE nv_inference_request_success counter
nv_inference_request_success{model="income",version="1"} 33
# HELP nv_inference_request_failure Number of failed inference requests, all batch sizes
# TYPE nv_inference_request_failure counter
nv_inference_request_failure{model="income",reason="OTHER",version="1"} 2
nv_inference_request_failure{model="income",reason="BACKEND",version="1"} 1
# HELP nv_inference_count Number of inferences performed (does not include cached requests)
# TYPE nv_inference_count counter
nv_inference_count{model="income",version="1"} 66
# TYPE nv_inference_exec_count counter
nv_inference_exec_count{model="income",version="1"} 11
# TYPE nv_inference_request_duration_us counter
nv_inference_request_duration_us{model="income",version="1"} 109151
# TYPE nv_inference_queue_duration_us counter
nv_inference_queue_duration_us{model="income",version="1"} 229
# TYPE nv_inference_compute_input_duration_us counter
nv_inference_compute_input_duration_us{model="income",version="1"} 6379
# TYPE nv_inference_compute_infer_duration_us counter
nv_inference_compute_infer_duration_us{model="income",version="1"} 98536
# TYPE nv_inference_compute_output_duration_us counter
nv_inference_compute_output_duration_us{model="income",version="1"} 3655
# HELP nv_inference_pending_request_count Instantaneous number of pending requests
# TYPE nv_inference_pending_request_count gauge
nv_inference_pending_request_count{model="income",version="1"} 4
# TYPE nv_cpu_utilization gauge
nv_cpu_utilization 0.99
"""
SUMMARY = """\
# TYPE nv_inference_request_summary_us summary
nv_inference_request_summary_us_count{model="income",version="1"} 33
nv_inference_request_summary_us_sum{model="income",version="1"} 109151
nv_inference_request_summary_us{model="income",version="1",quantile="0.99"} 9000
nv_inference_request_summary_us{model="income",version="1",quantile="0.5"} 3000
nv_inference_request_summary_us{model="income",version="1",quantile="0.9"} Nan
"""
KEY = ("income", "1")


def test_a_page_as_triton_prints_it() -> None:
    found = read_metrics_page(PAGE)
    assert set(found) == {KEY}
    counters = found[KEY]
    assert (counters.requests, counters.failures, counters.rows) == (33, 3, 66)
    assert (counters.executions, counters.pending) == (11, 4)
    assert counters.total == pytest.approx(0.109151)
    assert counters.queue == pytest.approx(0.000229)
    assert counters.compute == pytest.approx(0.10857)
    assert counters.quantiles == {}


def test_percentiles_where_the_server_has_them() -> None:
    quantiles = read_metrics_page(PAGE + SUMMARY)[KEY].quantiles
    assert list(quantiles) == [0.5, 0.99]  # in order, without what is no number
    assert quantiles[0.5] == pytest.approx(0.003)


def test_a_page_of_no_model() -> None:
    assert read_metrics_page("# TYPE nv_cpu_utilization gauge\nnv_cpu_utilization 0.5\n") == {}


def test_another_page_is_rejected() -> None:
    with pytest.raises(ValueError, match=r".+"):
        read_metrics_page('<!doctype html><p class="x">hello</p>\n')


def test_quoted_names() -> None:
    line = r'nv_inference_count{model="a\"b,c=}",version="2"} 5'
    assert read_metrics_page(f"{line}\n")['a"b,c=}', "2"].rows == 5


def test_statistics_by_grpc_are_the_same_counters() -> None:
    entry = service_pb2.ModelStatistics(
        name="income", version="1", inference_count=66, execution_count=11
    )
    spent = entry.inference_stats
    spent.success.count, spent.success.ns = 33, 109_151_000
    spent.fail.count = 3
    spent.queue.ns = 229_000
    spent.compute_input.ns, spent.compute_infer.ns = 6_379_000, 98_536_000
    spent.compute_output.ns = 3_655_000
    (found,) = read_statistics([entry]).values()
    page = read_metrics_page(PAGE)[KEY]
    for name in ("requests", "failures", "rows", "executions", "total", "queue", "compute"):
        assert getattr(found, name) == pytest.approx(getattr(page, name)), name
    assert found.pending is None


BEFORE = Counters(requests=100, failures=1, rows=100, executions=50, total=1.0, queue=0.1,
                  compute=0.8)  # fmt: skip
NOW = Counters(requests=120, failures=2, rows=140, executions=60, total=1.5, queue=0.2,
               compute=1.1, pending=3)  # fmt: skip


def test_rates_are_the_difference_of_two_readings() -> None:
    (rate,) = rates({KEY: BEFORE}, {KEY: NOW}, 2.0).values()
    assert rate.requests == pytest.approx(10.0)
    assert rate.failures == pytest.approx(0.5)
    assert rate.latency == pytest.approx(0.025)
    assert rate.queue == pytest.approx(0.005)
    assert rate.compute == pytest.approx(0.015)
    assert rate.batch == pytest.approx(4.0)


def test_without_responses_there_is_no_latency() -> None:
    (rate,) = rates({KEY: NOW}, {KEY: NOW}, 2.0).values()
    assert rate.requests == 0
    assert rate.latency is None
    assert rate.batch is None
    assert rates({KEY: BEFORE}, {KEY: NOW}, 0.0) == {}


def test_a_restarted_server_counts_from_zero() -> None:
    again = Counters(requests=4, rows=4, executions=4, total=0.2)
    (rate,) = rates({KEY: BEFORE}, {KEY: again}, 2.0).values()
    assert rate.requests == pytest.approx(2.0)
    assert rate.latency == pytest.approx(0.05)


def test_a_new_version_has_no_rate_yet() -> None:
    """It may have answered for hours before the first reading."""
    (rate,) = rates({}, {KEY: NOW}, 2.0).values()
    assert rate.requests == 0
