"""A client may run anywhere: what only one system has is asked for behind a question whether it is there."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
SOURCES = sorted([*(ROOT / "client").rglob("*.py"), *(ROOT / "common").rglob("*.py")])
MODULES = {"fcntl", "grp", "posix", "pty", "pwd", "resource", "syslog", "termios", "tty", "uvloop"}
CALLS = {
    *("os.fork", "os.getpgid", "os.killpg", "os.nice", "os.sched_getaffinity", "os.sched_setaffinity"),
    *("os.getuid", "os.geteuid", "os.setpriority", "os.setsid", "os.uname", "os.mkfifo"),
    *("signal.SIGKILL", "signal.SIGSTOP", "signal.SIGCONT", "signal.SIGHUP", "signal.SIGUSR1", "signal.pause"),
}
ASKED = ("hasattr", "getattr", "sys.platform", "ImportError", "AttributeError")


def system_bound(tree: ast.Module) -> list[tuple[int, str]]:
    """What in a module is one system's own, with its line, where nothing near it asks for the system."""
    found: list[tuple[int, str]] = []
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                found += [(node.lineno, name.name) for name in names if name.name.split(".")[0] in MODULES]
            case ast.ImportFrom(module=str(name)) if name.split(".")[0] in MODULES:
                found.append((node.lineno, name))
            case ast.Attribute(value=ast.Name(id=owner), attr=name) if f"{owner}.{name}" in CALLS:
                found.append((node.lineno, f"{owner}.{name}"))
            case ast.Constant(value=str(text)) if text.startswith(("/proc/", "/sys/", "/dev/")):
                found.append((node.lineno, text))
    return found


def asked_for(tree: ast.Module, line: int, source: str) -> bool:
    """Whether the function around that line asks what system it is on, or whether the thing is there."""
    around = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.lineno <= line <= (node.end_lineno or 0)
    ]
    return any(word in (ast.get_source_segment(source, node) or "") for node in around for word in ASKED)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_is_taken_for_granted_that_one_system_has(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    tree = ast.parse(source)
    bound = [(line, what) for line, what in system_bound(tree) if not asked_for(tree, line, source)]
    assert not bound, f"{path.name}: {bound} is not everywhere; ask for it, or take another way"
