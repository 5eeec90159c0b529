"""What starts a training elsewhere: the files parse, and all start the same line, which the command line takes."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from torch.distributed.run import get_args_parser

from glassformer.cli.main import application
from glassformer.cli.train import split_overrides
from glassformer.training.recipes import read_recipe

ROOT = Path(__file__).parents[2]
LAUNCH = sorted((ROOT / "launch").iterdir())
PLACES = {"NODES": "2", "GPUS_PER_NODE": "8", "PROCESSES": "16", "HEAD": "node0", "MASTER_PORT": "29500"}


def started(path: Path) -> str:
    """The one line that starts torchrun, its parts joined."""
    joined = re.sub(r"\\\n\s*", "", path.read_text(encoding="utf-8"))
    [line] = re.findall(r"^\s*(torchrun .*)$", joined, re.MULTILINE)
    return str(line)


def filled(line: str) -> list[str]:
    """The line's words, with places for the variables."""
    words = shlex.split(line)
    return [re.sub(r"\$(\w+)", lambda found: PLACES.get(found[1], f"/{found[1].lower()}"), word) for word in words]


def test_there_is_one_for_each() -> None:
    assert [path.name for path in LAUNCH] == ["kubernetes.yaml", "skypilot.yaml", "slurm.sh"]


def test_all_start_the_same_line() -> None:
    assert len({started(path) for path in LAUNCH}) == 1


@pytest.mark.parametrize(
    "options", [("--run-folder", "runs/a"), ("--log-to", "wandb"), ("--name", "a"), ("--resume", "a")]
)
def test_torchrun_leaves_options_of_train_alone(options: tuple[str, str]) -> None:
    """It reads what begins like an option of its own, `--run` for `--run-path`, even behind the module's name."""
    given = get_args_parser().parse_args(["-m", "glassformer", "train", *options])
    assert given.training_script_args == ["train", *options]
    _, bound, _ = application().parse_args(["train", *options], exit_on_error=False, print_error=False)
    [value] = [value for name, value in bound.arguments.items() if name != "recipe"]
    assert str(value) == options[1]


def test_torchrun_and_train_take_its_options(monkeypatch: pytest.MonkeyPatch) -> None:
    given = get_args_parser().parse_args(filled(started(LAUNCH[0]))[1:])
    assert given.module and given.training_script == "glassformer" and given.nnodes == "2"
    verb, bound, _ = application().parse_args(given.training_script_args, exit_on_error=False, print_error=False)
    assert verb.__name__ == "train" and bound.arguments["if_exists"] == "resume"
    recipes, overrides = split_overrides(bound.arguments["recipe"])
    monkeypatch.chdir(ROOT)
    recipe = read_recipe(recipes[0], overrides)
    assert recipe.parallel.processes == 16 == int(PLACES["NODES"]) * int(given.nproc_per_node)
    rows = recipe.training.batch_tokens // recipe.data.context
    assert rows >= recipe.parallel.data  # no process is without a row


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_scripts_are_bash(tmp_path: Path) -> None:
    run = [yaml_of(path) for path in LAUNCH if path.suffix == ".yaml"]
    pod = run[0][1]["spec"]["template"]["spec"]["containers"][0]["args"][0]
    scripts = [(ROOT / "launch" / "slurm.sh").read_text(), run[1][0]["run"], run[1][0]["setup"], pod]
    for script in scripts:
        done = subprocess.run(["bash", "-n"], input=script, text=True, capture_output=True)
        assert done.returncode == 0 and not done.stderr, done.stderr


def yaml_of(path: Path) -> list[Any]:
    yaml = pytest.importorskip("yaml", reason="needs PyYAML")
    return list(yaml.safe_load_all(path.read_text(encoding="utf-8")))


def test_the_pods_find_the_first_one() -> None:
    """By the name that an indexed Job and its service give to it."""
    service, job = yaml_of(ROOT / "launch" / "kubernetes.yaml")
    pod = job["spec"]["template"]["spec"]
    [container] = pod["containers"]
    variables = {each["name"]: each["value"] for each in container["env"]}
    name = job["metadata"]["name"]
    assert variables["HEAD"] == f"{name}-0.{service['metadata']['name']}" == f"{name}-0.{pod['subdomain']}"
    assert service["spec"]["selector"] == {"job-name": name} and job["spec"]["completionMode"] == "Indexed"
    assert {volume["name"] for volume in pod["volumes"]} == {mount["name"] for mount in container["volumeMounts"]}
    used = set(re.findall(r"\$(\w+)", started(ROOT / "launch" / "kubernetes.yaml")))
    assert used - {"PROCESSES"} <= variables.keys()


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_the_slurm_script_starts_it_on_every_node(tmp_path: Path) -> None:
    """With stand-ins for Slurm's programs and for torchrun, which says what it was given."""
    stand_ins = {
        "scontrol": "#!/bin/bash\necho node7; echo node8\n",
        "srun": '#!/bin/bash\nshift; exec "$@"\n',
        "torchrun": '#!/bin/bash\nprintf "%s\\n" "$@"\n',
    }
    for name, script in stand_ins.items():
        (tmp_path / name).write_text(script)
        (tmp_path / name).chmod(0o755)
    slurm = {"SLURM_JOB_NUM_NODES": "2", "SLURM_GPUS_ON_NODE": "8", "SLURM_JOB_NODELIST": "node[7-8]"}
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", **slurm}
    script = ["bash", str(ROOT / "launch" / "slurm.sh")]
    done = subprocess.run(script, env=environment, text=True, capture_output=True)
    assert done.returncode != 0 and "set DATA to the folder" in done.stderr
    places = {"DATA": "/shared/data", "RUN": "/shared/my run"}
    done = subprocess.run(script, env={**environment, **places}, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    words = [re.sub("^node0:", "node7:", word) for word in filled(started(LAUNCH[2]))[1:]]
    words[words.index("/data")], words[words.index("/run")] = "/shared/data", "/shared/my run"
    assert done.stdout.splitlines() == words
