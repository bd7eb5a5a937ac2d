"""Whatever happens to the readers of its output, a program goes on and says what it can."""

import os
import subprocess
import sys
from pathlib import Path

PROGRAM = """
import sys
from ladle.streams import be_patient, what_was_lost
be_patient()
for _ in range(3):
    print("é \\udcff", "x" * 100_000, flush=True)
with open("file.txt", "w") as file:
    print("to the stream")
    file.write("to the file")
print("é \\udcff", file=sys.stderr)
lost = what_was_lost()
sys.exit(3 if lost else 0)
"""


def start(folder, **streams):
    environment = os.environ | {"PYTHONIOENCODING": "ascii", "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM], cwd=folder, env=environment, stderr=subprocess.PIPE, text=True, **streams
    )


def ended(folder, program):
    """Its exit code and its last line on standard error; the file that it wrote must be complete."""
    message = program.stderr.read()
    program.stderr.close()
    code = program.wait(timeout=30)
    assert (folder / "file.txt").read_text() == "to the file"
    return code, message


def test_what_an_encoding_lacks_is_an_escape(tmp_path):
    program = start(tmp_path, stdout=subprocess.PIPE)
    printed = program.stdout.read()
    program.stdout.close()
    assert ended(tmp_path, program) == (0, "\\xe9 \\udcff\n")
    assert printed.startswith("\\xe9 \\udcff xxx")
    assert printed.endswith("to the stream\n")


def test_a_reader_that_goes_away_stops_nothing(tmp_path):
    program = start(tmp_path, stdout=subprocess.PIPE)
    program.stdout.close()
    assert ended(tmp_path, program) == (0, "\\xe9 \\udcff\n")


def test_a_closed_stream_is_no_file_that_is_opened_later(tmp_path):
    program = start(tmp_path, preexec_fn=lambda: os.close(1))
    assert ended(tmp_path, program) == (0, "\\xe9 \\udcff\n")


def test_what_cannot_be_written_is_known_in_the_end(tmp_path):
    with Path(os.devnull).open("rb") as unwritable:
        program = start(tmp_path, stdout=unwritable)
    assert ended(tmp_path, program) == (3, "\\xe9 \\udcff\n")
