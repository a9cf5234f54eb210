"""A server of jobs for the tests, run as a process: `python server.py HOME`. It works until it is killed."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from tunechat.serve.contract.jobs import TrainingEnded
from tunechat.serve.jobs.database import Database
from tunechat.serve.jobs.files import FileStore
from tunechat.serve.jobs.job import Job
from tunechat.serve.jobs.queue import JobQueue
from tunechat.serve.jobs.supervisor import Supervisor, Workplace

TRAINEE = (sys.executable, "-I", "-S", str(Path(__file__).with_name("trainee.py")))


async def publish(job: Job, ended: TrainingEnded) -> str:
    return f"ft:{job.model}:{ended.best_step}"


async def main(home: Path) -> None:
    base = Database(home / "jobs.db")
    place = Workplace(folder=home / "jobs", entry=home / "entry", command=TRAINEE)
    async with Supervisor(JobQueue(base), FileStore(base, home / "files"), place, publish).lifespan():
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
