"""Commands that need neither a job nor a store: doctor, schema."""

import json

from pipeline.commands.parameters import AsJson, printed


def doctor(as_json: AsJson = False) -> None:
    """Check this machine: libraries, GPU, Ray."""
    from pipeline.doctor import examine
    from pipeline.show import show_rows

    show_rows(examine(), as_json=as_json)


def schema() -> None:
    """Print the JSON Schema of a job file, for editors."""
    from schemas.job import job_json_schema

    printed(json.dumps(job_json_schema(), indent=2))
