"""Benchmarks: their command lines, their files of results, and the pages that are written from these files."""

import doctest
import importlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BENCHMARKS = ROOT / "benchmarks"
WHO = ["ptree", "by hand", "Flax linen", "Flax nnx", "Haiku"]
sys.path.insert(0, str(BENCHMARKS))  # where the scripts find each other
try:
    catalogue, results, tables, turns_module, timing, finding = (
        importlib.import_module(name) for name in ("_catalogue", "_results", "_tables", "_turns", "_timing", "_finding")
    )
finally:
    sys.path.remove(str(BENCHMARKS))
Row, Aim = results.Row, results.Aim


@pytest.fixture
def turns(monkeypatch):
    """A call, with a command line, of what runs the benchmarks that take turns."""

    def make(who, size):
        if who == "Haiku":
            raise ModuleNotFoundError("No module named 'haiku'", name="haiku")
        raise AssertionError("nobody should be measured")

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["script.py", *arguments])
        turns_module.run("script.py", make, WHO, [4], [])

    return call


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--who", "nnx"], "nobody is called 'nnx', did you mean 'Flax nnx'?"),
        (["--who", "ptree", "flax"], "nobody is called 'flax', did you mean 'Flax linen' or 'Flax nnx'?"),
        (["--who", "Hakiu"], "nobody is called 'Hakiu', did you mean 'Haiku'?"),
        (["--who", "zzz", "haiku"], "nobody is called 'zzz'; nobody is called 'haiku', did you mean 'Haiku'? (there are"
         " 'ptree', 'by hand', 'Flax linen', 'Flax nnx', 'Haiku')"),
        (["--rounds", "0"], "expected a number of at least 1, got 0"),
        (["--sizes", "4", "-1"], "expected a number of at least 1, got -1"),
        (["--json", "/no/such/folder/a.json"], "there is no folder /no/such/folder"),
    ],
)  # fmt: skip
def test_a_command_line_that_cannot_be_measured_is_refused_at_once(turns, capsys, arguments, text):
    with pytest.raises(SystemExit) as stopped:
        turns(*arguments)
    assert stopped.value.code == 2
    assert text in capsys.readouterr().err.replace("\n", " ")


def test_a_package_that_is_not_installed_is_named(turns):
    with pytest.raises(SystemExit, match=r"^Haiku needs the package 'haiku', which is not installed$"):
        turns("--child", "Haiku", "4")


def test_every_script_with_names_goes_through_this():
    for script in BENCHMARKS.glob("[a-z]*.py"):
        text = script.read_text()
        assert '"--who"' not in text, script.name


@pytest.mark.parametrize("module", [results, finding])
def test_examples_of_the_shared_modules_are_right(module):
    found = doctest.testmod(module)
    assert found.attempted
    assert not found.failed


# ---------------------------------------------------------------------------------- rows and files


@pytest.mark.parametrize(
    ("row", "missed"),
    [
        (Row("step", "by hand", 1.0, "s", ratio=1.02, aim=Aim(1.02)), ""),
        (Row("step", "by hand", 1.0, "s", ratio=1.53, aim=Aim(1.02)), "50 %"),
        (Row("memory", "by hand", 1.0, "B", ratio=1.0000001, aim=Aim(1)), ""),
        (Row("step", "ptree", 0.33, "s", aim=Aim(0.3, "value")), "10 %"),
        (Row("found", "ptree", 45.0, "%", aim=Aim(60, "value", "at least")), "25 %"),
        (Row("found", "ptree", 75.0, "%", aim=Aim(60, "value", "at least")), ""),
        (Row("cycles", "ptree", 0, "", aim=Aim(0, "value")), ""),
        (Row("cycles", "ptree", 2, "", aim=Aim(0, "value")), "200 %"),
        (Row("step", "by hand", 1.0, "s", ratio=2.0), ""),
    ],
)
def test_a_miss_is_a_share_of_the_limit(row, missed):
    assert results.missed_text(row) == missed


def test_a_target_for_a_number_that_is_not_there_is_refused():
    with pytest.raises(AssertionError, match="a target for a number that is not there"):
        Row("step", "ptree", 1.0, "s", aim=Aim(1.02)).missed_by


def test_a_row_as_a_line():
    row = Row("load", "Orbax", 1.5, "s", "2 M numbers", 0.05123, "mapped", 0.004, Aim(0.05))
    assert results.line(row) == "| load, 2 M numbers | Orbax | 1.5 s | 0.051 ± 0.004 (mapped) | at most 0.05 | 2 % |"


def test_the_ratio_is_the_median_of_neighbours_rather_than_that_of_medians():
    middle, spread = timing.ratio([1, 2, 3, 8, 5], [1, 1, 6, 2, 5])
    assert middle == 1.0
    assert spread == 0.5
    assert timing.ratio([2.0, 4.0], [1.0, 1.0]) == (3.0, None)


def test_results_are_read_as_they_were_written(tmp_path):
    rows = [
        Row("step", "ptree", 0.5, "s", "4 layers"),
        Row("step", "by hand", 0.4, "s", "4 layers", 1.25, "a dict", 0.125, Aim(1.5), in_file_only=True),
        Row("leaves", "ptree", 148, ""),
    ]
    place = {"processor": "x86-64", "cores": 2, "system": "Linux", "accelerator": "none"}
    written = results.Result("dispatch", "python a.py", "2026-01-02", place, {"jax": "1"}, rows, 1.5, 1.0, "A note.")
    for name in ("dispatch.json", "dispatch.other.json"):
        results.write(tmp_path / name, written)
    assert results.read(tmp_path / "dispatch.json") == written
    assert results.read_all(tmp_path) == {"dispatch": [written, written]}
    assert results.read_first(tmp_path) == {"dispatch": written}
    lines = (tmp_path / "dispatch.json").read_text().splitlines()
    assert sum('"what"' in line for line in lines) == 3, "one row a line"


def test_every_script_and_every_file_of_results_is_in_the_catalogue():
    scripts = {script.name for script in BENCHMARKS.glob("[a-z]*.py")}
    assert scripts == {benchmark.script for benchmark in catalogue.BENCHMARKS.values()}
    for path in results.RESULTS.glob("*"):
        assert path.suffix == ".json"
        assert path.name.split(".")[0] == results.read(path).benchmark
        assert results.read(path).benchmark in catalogue.BENCHMARKS


def test_results_name_no_folder_of_a_user_and_say_where_they_were_measured():
    for path in results.RESULTS.glob("*.json"):
        text = path.read_text()
        assert not re.search(r"/(home|root|Users|work)/", text), path.name
        found = results.read(path)
        assert {"processor", "cores", "system", "accelerator"} <= {*found.machine}, path.name
        assert {"Python", "jax"} <= {*found.versions}, path.name
        assert re.fullmatch(r"\d{4}-\d\d-\d\d", found.date), path.name
        assert found.seconds or found.note, (
            f"{path.name}: neither measured by the script, nor a word of where it is from"
        )


# ------------------------------------------------------------------------------------------- pages


def test_the_page_of_tables_is_written_from_the_results():
    assert tables.PAGE.read_text() == tables.page(results.read_all()), "run python -m benchmarks --tables"


def test_rows_that_miss_their_target_are_shown_even_where_others_are_not():
    rows = [
        Row("step", "ptree", 1.0, "s", in_file_only=True),
        Row("step", "by hand", 1.0, "s", ratio=1.5, aim=Aim(1.0), in_file_only=True),
    ]
    place = {"processor": "x86-64", "cores": 2, "system": "Linux", "accelerator": "none"}
    result = results.Result("mlp", "python mlp.py", "2026-01-02", place, {}, rows)
    page = tables.page({"mlp": [result]})
    assert "| step | by hand | 1 s | 1.50 | at most 1 | 50 % |" in page
    assert "| ptree | 1 s |" not in page
    assert "| [Small layers](#small-layers) | 2 cores | 1 | 1 |" in page


def test_counts_of_the_code_come_last_and_are_not_among_what_users_pay():
    place = {"processor": "x86-64", "cores": 16, "cores_used": 2, "system": "Linux", "accelerator": "none"}
    rows = [Row("comments per 100 lines", "ptree", 3.0, "", aim=Aim(5, "value", "at least"))]
    found = {
        name: [results.Result(name, f"python {name}.py", "2026-01-02", place, {}, rows)]
        for name in ("shape", "imports")
    }
    for_users, for_contributors = tables.page(found).split("## For contributors\n")
    assert "| [Importing](#importing) | 2 of 16 cores | 1 | 1 |" in for_users
    assert "## Importing\n" in for_users
    assert "the shape of the code" not in for_users.lower()
    assert for_contributors.count("### The shape of the code\n") == 1
    assert "| comments per 100 lines | ptree | 3 |  | at least 5 | 40 % |" in for_contributors
    assert "x86-64, 2 of 16 cores, Linux" in for_contributors
    assert "\n## " not in for_contributors


def test_every_headline_has_its_row():
    lines = tables.figures(results.read_first()).splitlines()
    measured = [catalogue.BENCHMARKS[name] for name in results.read_first()]
    assert len(lines) == 2 + sum(len(benchmark.headlines) for benchmark in measured)


def test_a_headline_shows_all_that_was_measured_beside_ptree_the_largest_ratio_first():
    headline = catalogue.Headline("loading", "load")
    rows = [
        Row("load", "ptree", 1, "s", size="1 GB"),
        Row("load", "ptree, mapped", 0.1, "s", ratio=10.0, size="1 GB"),
        Row("load", "Orbax", 4, "s", ratio=0.25, size="1 GB"),
        Row("load", "np.savez", 2, "s", ratio=0.5, size="1 GB"),
        Row("load", "np.savez", 2, "s", ratio=0.9, ratio_of="mapped", size="1 GB"),
        Row("load", "plain bytes", 1, "s", ratio=1.0, size="1 GB"),
        Row("load", "plain bytes", 1, "s", ratio=0.8, size="10 MB"),
    ]
    result = results.Result("files", "", "2026-11-26", {}, {}, rows)
    assert tables.figure(headline, result) == "| loading, 1 GB | plain bytes 1.000 · np.savez 0.50 · Orbax 0.25 |"
    assert tables.figure(headline._replace(size="10 MB"), result) == "| loading | plain bytes 0.80 |"
    assert tables.figure(headline._replace(way="mapped"), result).endswith("| np.savez 0.900 |")
    with pytest.raises(LookupError, match="no row fits the headline"):
        tables.telling_rows(catalogue.Headline("saving", "save"), rows)


def test_the_figures_of_the_readme_are_written_from_the_results():
    readme = tables.README.read_text()
    assert tables.with_figures(readme, results.read_first()) == readme, "run python -m benchmarks --headlines"


def test_a_figure_in_a_sentence_is_that_of_its_headline():
    row = results.Row("step of Adam", "by hand, one leaf", 0.5, "s", ratio=1.25)
    measured = results.Result("ties", "", "2026-11-26", {}, {}, [row])
    text = "at 9.99<!-- step of Adam with tied parameters; by hand, one leaf --> of the time"
    expected = text.replace("9.99", "1.25")
    assert tables.with_figures_in_sentences(text, {"ties": measured}) == expected
    for unknown in (
        "a step of nothing; by hand, one leaf",
        "step of Adam with tied parameters; nnx",
        "a step of nothing",
    ):
        with pytest.raises(ValueError, match="no such headline was measured"):
            tables.with_figures_in_sentences(f"1.0<!-- {unknown} -->", {"ties": measured})


def test_the_readme_has_a_figure_in_each_of_its_five_reasons():
    why = tables.README.read_text().partition("## Why")[2].partition("\n## ")[0]
    reasons = re.split(r"\n\d\. ", why)[1:]
    assert len(reasons) == 5
    assert all(tables.FIGURE_IN_A_SENTENCE.search(reason) for reason in reasons)


def test_figures_stand_between_their_markers():
    start, end = tables.MARKERS
    assert tables.with_table("# ptree\n", "| new |") == "# ptree\n"
    assert tables.with_table(f"a\n{start}\nold\n{end}\nb\n", "| new |") == f"a\n{start}\n| new |\n{end}\nb\n"
    with pytest.raises(ValueError, match="no <!-- end of figures --> after it"):
        tables.with_table(f"{end}\n{start}\n", "| new |")


# -------------------------------------------------------------------------------------- all of them


def run(*command):
    return subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True, check=False)


def test_the_command_names_all_and_refuses_other_names():
    listed = run("-m", "benchmarks", "--list")
    assert [line.split()[0] for line in listed.stdout.splitlines()] == [*catalogue.BENCHMARKS], listed.stderr
    refused = run("-m", "benchmarks", "dispath")
    assert refused.returncode == 2
    assert "there is no benchmark 'dispath', but imports, dispatch," in refused.stderr
    assert "name benchmarks, or give --all" in run("-m", "benchmarks").stderr


SCRIPTS = {benchmark.script: name for name, benchmark in [*catalogue.BENCHMARKS.items()][::-1]}


@pytest.mark.parametrize("name", [*SCRIPTS.values()])
def test_every_benchmark_runs_in_its_smallest_form(name, tmp_path):
    benchmark, file = catalogue.BENCHMARKS[name], tmp_path / "found.json"
    for package in benchmark.packages:
        pytest.importorskip(package)
    done = run(f"benchmarks/{benchmark.script}", *benchmark.smallest, "--json", str(file))
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(file.read_text())
    assert found["rows"]
    who = {row["who"] for row in found["rows"]}
    assert any(each.startswith("ptree") for each in who)
    assert len(who) > 1 or name == "imports"
    assert found["command"].startswith("python benchmarks/")
    assert "--json" not in found["command"]
