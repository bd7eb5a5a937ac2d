import pytest

from tests.fuzz.annotations import FORMATS, attack, complaint, make_images, mutate, write_voc


@pytest.mark.parametrize("kind", FORMATS)
def test_damaged_annotations_are_read_or_refused_in_a_sentence(kind):
    outcome = attack(kind, count=200, mutants=20, seed=7)
    assert outcome.findings == []
    assert outcome.readings == 21
    assert 0 < outcome.refused < outcome.readings


def test_the_attack_sees_a_traceback_and_a_broken_promise(tmp_path, monkeypatch):
    import random

    from tests.fuzz import annotations

    def broken(*given, **named):
        raise KeyError("bbox")

    monkeypatch.setattr(annotations, "read", broken)
    assert "KeyError: 'bbox'" in complaint(tmp_path, "repair", annotations.Outcome())
    make_images(tmp_path / "pictures")
    files = write_voc(random.Random(1), tmp_path, 5, 10, 0.0)
    before = files[0].read_bytes()
    mutate(random.Random(1), files[0])
    assert files[0].read_bytes() != before
