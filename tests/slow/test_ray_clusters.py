"""Ray clusters that take minutes: two raylets of which one is lost, and a port where something else listens."""

from __future__ import annotations

import pytest
from worlds.executor_worlds import gone, python


@pytest.mark.ray
@pytest.mark.slow
def test_two_raylets_through_their_address_and_the_loss_of_one_change_no_result():
    script = """
    from ray.cluster_utils import Cluster
    import ray
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    second = cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    executor = RayExecutor(address=cluster.address)
    executor.open(t.quadratic())
    assert executor.workers == 2, executor.reason
    assert t.outcome(executor, t.quadratic()) == expected
    executor.open(t.Tricky({}, nap_s=0.05))
    tickets = [executor.train(b) for b in t.batches(executor.share(np.zeros(8, np.float32)))]
    tickets[0].result()
    places = executor.places()
    cluster.remove_node(second, allow_graceful=False)
    ends = [u.end.tobytes() for ticket in tickets for u in ticket.result()]
    assert ends == [bits[0] for bits in expected[0]]
    assert sum(a != b for a, b in zip(places, executor.places())) == 1
    executor.close()
    assert not ray.is_initialized()
    executor = RayExecutor(workers=1, address=cluster.address)  # the cluster is still there
    executor.open(t.quadratic())
    assert t.outcome(executor, t.quadratic()) == expected
    executor.close()
    cluster.shutdown()
    print("equal")
    """
    with python(script) as (process, others):
        said, _ = process.communicate(timeout=280)
        assert said.splitlines()[-1:] == ["equal"]
        assert process.returncode == 0
        assert gone(others)


@pytest.mark.ray
@pytest.mark.slow
def test_a_port_where_something_else_listens_is_given_up_in_time():
    script = """
    import http.server, threading
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    began = time.monotonic()
    try:
        RayExecutor(address=f"127.0.0.1:{server.server_port}").open(t.quadratic())
    except t.HostError as problem:
        print(problem.exit_code, time.monotonic() - began < 45, "no Ray cluster answers" in str(problem))
    """
    with python(script) as (process, _):
        assert process.communicate(timeout=120)[0] == "3 True True\n"
