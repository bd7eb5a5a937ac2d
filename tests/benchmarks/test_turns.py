"""Timings in turns, and the tables of results: what is counted and what is not."""


def test_all_take_turns_and_the_first_round_does_not_count(load, monkeypatch):
    calm = load("peers.calm")
    waited, worked = [], []
    monkeypatch.setattr(calm, "wait", waited.append)
    every = {name: lambda name=name: worked.append(name) for name in ("one", "other")}
    times, foreign = calm.take_turns(every, rounds=3, device="cpu")
    assert worked == ["one", "one", "other", "other"] * 4
    assert waited == [calm.PATIENCE] * 4
    assert {name: len(seconds) for name, seconds in times.items()} == {"one": 3, "other": 3}
    assert all(second >= 0 for seconds in times.values() for second in seconds)
    assert 0 <= foreign <= 1


def test_a_row_tells_its_mean_and_standard_error(load):
    methods = load("methods")
    done = [
        {"row": "lad", "method": "lad", "seed": seed} | dict.fromkeys(methods.COLUMNS, ap)
        for seed, ap in enumerate((30.0, 33.0, 36.0))
    ]
    line = methods.table(done).splitlines()[-1]
    # The standard deviation is 3, of three seeds, and the error of their mean its third part times the root of three.
    assert line == "| lad | 3 | " + " | ".join(["33.0 ± 1.7"] * 6) + " |"
    done[0]["APS"] = float("nan")
    assert methods.table(done).splitlines()[-1].split(" | ")[5] == "–"
