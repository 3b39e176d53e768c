"""The cut of staticness that the viewer leaves with a run."""

from types import SimpleNamespace

import pytest

from das3r_ns.runs.config_file import RunError
from das3r_ns.runs.staticness_cut import FILE, store_cut, stored_cut, use_cut


def test_a_cut_comes_back_and_can_be_taken_away(tmp_path):
    assert stored_cut(tmp_path) is None
    store_cut(tmp_path, 0.75)
    assert stored_cut(tmp_path) == 0.75
    store_cut(tmp_path, None)
    assert stored_cut(tmp_path) is None
    store_cut(tmp_path, None)  # nothing to take away
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"cull_staticness": "x"}', '{"cull_staticness": 1.5}', '{"cull_staticness": true}']
)
def test_a_damaged_cut_is_named_with_what_to_do(tmp_path, content):
    (tmp_path / FILE).write_text(content)
    with pytest.raises(RunError, match=f"{FILE}.*Delete it"):
        stored_cut(tmp_path)


def test_a_loaded_model_is_cut_there_and_it_is_said(tmp_path, capsys):
    model = SimpleNamespace(cull_staticness=0.5)
    use_cut(model, None, tmp_path)
    use_cut(model, 0.5, tmp_path)
    assert capsys.readouterr().out == ""
    use_cut(model, 0.8, tmp_path)
    assert model.cull_staticness == 0.8
    assert "0.80" in capsys.readouterr().out
