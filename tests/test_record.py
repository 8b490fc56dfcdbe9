"""What a stage key holds: a dataset is stale when something else would be written, and only then."""

from dataclasses import dataclass, field, replace

import pytest

from degstalk_ns.preprocess.config import ProcessConfig
from degstalk_ns.preprocess.record import formerly, key_settings, stage_key


@dataclass(frozen=True)
class Options:
    first: int = 1
    named_later: float = field(default=0.5, metadata=formerly())
    renamed: float = field(default=0.25, metadata=formerly(quarter=1))


def test_a_number_that_got_a_name_is_no_change_until_it_is_changed() -> None:
    assert key_settings(Options()) == {"first": 1, "quarter": 1}
    assert key_settings(Options(first=2, named_later=0.6)) == {"first": 2, "named_later": 0.6, "quarter": 1}
    assert key_settings(Options(renamed=0.3)) == {"first": 1, "renamed": 0.3}


# Keys of datasets that were made before their numbers had names. Head poses have been found otherwise since.
@pytest.mark.parametrize(
    ("options", "key"),
    [
        ("tracking", "467cd47fdf655656"),
        ("parsing", "3cfb80c4a7359933"),
        ("plates", "da59f5bb868cbec7"),
        ("mel", "af701406558b5714"),
    ],
)
def test_datasets_made_before_stay_current(options: str, key: str) -> None:
    assert stage_key(1, key_settings(getattr(ProcessConfig(), options)), []) == key


def test_a_changed_option_is_in_the_key() -> None:
    parsing = ProcessConfig().parsing
    assert key_settings(replace(parsing, neck_share=0.05)) != key_settings(parsing)
