"""Jobs in `tunechat ps`, from the metrics of a server."""

from __future__ import annotations

from tunechat.serve.commands.ps_jobs import job_rows, jobs_of

TEXT = """# HELP tunechat_jobs Fine-tuning jobs.
tunechat_jobs{status="running"} 1.0
tunechat_jobs{status="validating_files"} 2.0
tunechat_jobs{status="failed"} 0.0
tunechat_trainer_step{job="0a1b2c3d",pid="41"} 3.0
tunechat_trainer_steps{job="0a1b2c3d",pid="41"} 1e+06
tunechat_trainer_resident_bytes{job="0a1b2c3d",pid="41"} 5.24288e+06
tunechat_trainer_own_bytes{job="0a1b2c3d",pid="41"} 2.097152e+06
"""


def test_trainers_and_counts_are_read() -> None:
    jobs = jobs_of(TEXT)
    assert jobs["counts"] == {"running": 1, "validating_files": 2}
    assert jobs["trainers"] == [
        {"job": "0a1b2c3d", "pid": 41, "step": 3, "steps": 10**6, "resident_bytes": 5 << 20, "own_bytes": 2 << 20}
    ]


def test_the_base_is_counted_once() -> None:
    rows = dict(job_rows(jobs_of(TEXT), 10 << 20))
    assert rows["jobs"] == "1 running, 2 validating files"
    assert rows["memory in all"].startswith("12.0 MiB")


def test_a_server_without_jobs_has_no_lines() -> None:
    assert job_rows(jobs_of("tunechat_engine_ready 1.0\n"), 1) == []
