"""Executors of local processes."""

import os

from ceflpipe.pipeline.executor import process_executor


def test_workers_that_are_kept_change_to_the_working_folder_of_each_call(tmp_path, monkeypatch):
    """Relative paths of tasks would otherwise lead into the folder of an earlier call."""
    pids = []
    for name in ("first", "second"):
        folder = tmp_path / name
        folder.mkdir()
        monkeypatch.chdir(folder)
        results = list(process_executor(2)(lambda _: (os.getpid(), os.getcwd()), range(4)))
        assert {cwd for _, cwd in results} == {str(folder)}
        pids.append({pid for pid, _ in results})
    assert pids[0] & pids[1], "the workers were kept"
    assert os.getpid() not in pids[0]
