"""Care around the recording of CUDA graphs."""

import gc

import pytest
import torch

from das3r_ns.model.graphed import Graphed
from das3r_ns.runtime.cuda_graphs import capture


@pytest.mark.parametrize("collects", [True, False])
def test_nothing_is_collected_meanwhile_and_afterwards_all_is_as_before(collects):
    was = gc.isenabled()
    try:
        (gc.enable if collects else gc.disable)()
        with capture(torch.device("cpu")):
            assert not gc.isenabled()
        assert gc.isenabled() == collects
        with pytest.raises(RuntimeError, match="cannot"), capture(torch.device("cpu")):
            raise RuntimeError("cannot be recorded")
        assert gc.isenabled() == collects
    finally:
        (gc.enable if was else gc.disable)()


def test_what_became_garbage_before_is_collected_before():
    class Graph:
        freed = 0

        def __del__(self):
            Graph.freed += 1

    graph = Graph()
    graph.itself = graph
    del graph
    with capture(torch.device("cpu")):
        assert Graph.freed == 1


def test_after_a_recording_that_fails_work_goes_on_where_it_was(monkeypatch):
    device, streams = torch.device("cuda", 0), ["of the caller"]
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: streams[-1])
    monkeypatch.setattr(torch.cuda, "set_stream", streams.append)
    monkeypatch.setattr("das3r_ns.runtime.cuda_graphs._renew_generator", lambda device: None)
    with capture(device):
        streams.append("of the recording")
        streams.append("of the caller")  # as PyTorch does where all goes well
    assert len(streams) == 3

    def fails() -> None:
        streams.append("of the recording")
        raise RuntimeError("cannot be recorded")

    with pytest.raises(RuntimeError), capture(device):
        fails()
    assert streams[-1] == "of the caller"


@pytest.mark.gpu
def test_after_a_recording_that_fails_the_function_is_called_as_it_is_and_random_numbers_can_be_drawn():
    def waits(a):
        return (a * float(a.sum()),)  # waits for the GPU, which a recording must not

    graphed = Graphed(waits)
    given = torch.ones(3, device="cuda", requires_grad=True)
    torch.testing.assert_close(graphed(given)[0], 3 * torch.ones(3, device="cuda"))
    assert not graphed._enabled
    assert torch.cuda.current_stream() == torch.cuda.default_stream()
    assert torch.rand(1000, device="cuda").std() > 0.2
    torch.testing.assert_close(graphed(given)[0], 3 * torch.ones(3, device="cuda"))
