"""Timings in turns, and the tables of results: what is counted and what is not."""

import hashlib


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


def results(method, *aps):
    names = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large")
    return [{"row": method, "method": method, "seed": seed} | dict.fromkeys(names, ap) for seed, ap in enumerate(aps)]


def test_a_row_tells_its_mean_and_standard_error(load):
    records = load("records")
    done = results("lad", 30.0, 33.0, 36.0)
    line = records.table(done).splitlines()[-1]
    # The standard deviation is 3, of three seeds, and the error of their mean its third part times the root of three.
    assert line == "| lad | 3 | " + " | ".join(["33.0 ± 1.7"] * 6) + " |  |"
    done[0]["ap_small"] = float("nan")
    assert records.table(done).splitlines()[-1].split(" | ")[5] == "–"


def test_a_method_gains_only_where_the_interval_of_paired_differences_says_so(load):
    """Of three seeds the 97.5 % quantile of Student's distribution is 4.303: half a width of 4.303 s / root of 3."""
    records = load("records")
    done = results("plain", 20.0, 22.0, 24.0)
    done += results("sure", 23.0, 25.5, 27.5) + results("unsure", 21.0, 28.0, 26.0) + results("worse", 18.0, 20.1, 21.9)
    done += results("once", 25.0)
    said = {line.split(" | ")[0].strip("| "): line.split(" | ")[-1] for line in records.table(done).splitlines()[2:]}
    assert said["sure"] == "+3.3 ± 0.7 (+3.0, +3.5, +3.5): gains |"
    assert said["unsure"] == "+3.0 ± 6.6 (+1.0, +6.0, +2.0): not told apart |"
    assert said["worse"] == "-2.0 ± 0.2 (-2.0, -1.9, -2.1): loses |"
    assert said["once"] == "+5.0 (one seed) |"


def test_results_are_kept_line_by_line_and_not_measured_twice(load, tmp_path, monkeypatch):
    methods = load("methods")
    teacher = tmp_path / "teacher"
    teacher.write_bytes(b"weights")
    ran = []

    def scores(arguments, row, seed):
        ran.append((row, seed))
        yield results(row, 10.0)[0] | {"seed": seed}

    monkeypatch.setattr(methods, "scores", scores)
    line = (
        f"--rows plain,lad --seeds 0,1 --teacher {teacher} --out {tmp_path / 'out'} --record {tmp_path / 'all.jsonl'}"
    )
    monkeypatch.setattr(methods, "draw_comparison", lambda *given: given[1])
    for rows, expected in (("plain,lad", 4), ("plain,lad,pkd", 6)):
        monkeypatch.setattr("sys.argv", ["methods.py", *line.replace("plain,lad", rows).split()])
        methods.main()
        assert len(ran) == expected
    kept = load("records").read(tmp_path / "all.jsonl")
    assert [(one["row"], one["seed"]) for one in kept] == ran
    assert {one["teacher_sha256"] for one in kept} == {hashlib.sha256(b"weights").hexdigest()}
    assert all(one["setting"]["student"] == "paa-tiny" and one["machine"]["torch"] for one in kept)
    teacher.write_bytes(b"others")
    methods.main()
    assert len(ran) == 12, "another teacher's results are another table"


def test_a_row_may_change_the_flags(load):
    methods = load("methods")
    arguments = methods.argparse.Namespace(
        data="scenes",
        student="paa-tiny",
        teacher="T",
        epochs=2,
        imgsz=None,
        jitter=0,
        crop=0,
        flag=["mosaic=0.5"],
        out=methods.Path("runs"),
    )
    verb, flags = methods.command(arguments, "pkd~2!balance=moments!neck_norm=batch", 3)
    assert (verb, flags["method"], flags["weight"], flags["seed"]) == ("distill", "pkd", "2", 3)
    assert (flags["balance"], flags["neck_norm"], flags["mosaic"]) == ("moments", "batch", "0.5")
    assert methods.command(arguments, "plain:paa-mini!norm=group", 0)[1]["model"] == "paa-mini"
    assert methods.command(arguments, "plain", 0)[1]["model"] == "paa-tiny"
    assert methods.command(arguments, "colearn:paa-small", 0)[1]["second"] == "paa-small"


def test_a_run_of_other_flags_is_another_run(load):
    """A run that is there is resumed with the flags it had, so that one of an earlier budget must not be taken."""
    methods = load("methods")

    def name(row, *words):
        return methods.command(methods.parse(list(words)), row, 0)[1]["name"]

    assert name("plain", "--epochs", "4") == name("plain", "--epochs", "4")
    names = [name("lad/mini"), name("lad/mini", "--epochs", "4"), name("lad/mini", "--flag", "lr=0.1"), name("plain")]
    assert len(set(names)) == 4
    assert names[0].startswith("lad-by-mini-0-")
