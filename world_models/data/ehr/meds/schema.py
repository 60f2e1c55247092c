"""The columns we write beyond MEDS's own, declared for `meds` to validate.

`GeneratedTrajectorySchema` is the data schema plus `prediction_time`, as the package meds-trajectory-evaluation
defines it; that package is not needed to write it and brings a workflow engine along, so it is stated here again.
"""

# no `from __future__ import annotations` here: flexible_schema reads the annotations as objects, which are no types
# mypy: disable-error-code="valid-type"
import pyarrow as pa
from flexible_schema import Optional, Required
from meds import DataSchema

__all__ = ["EpisodeSchema", "GeneratedTrajectorySchema"]


class EpisodeSchema(DataSchema):
    """MEDS rows of PatientEpisodes: the columns beyond MEDS's own."""

    stay_id: Required(pa.int64(), nullable=True)
    order_set: Required(pa.int32(), nullable=True)  # time step: rows that share it were ordered together
    order_id: Required(pa.int64(), nullable=True)  # of an intervention, within its stay: start and end share it
    item: Optional(pa.string())  # our name (inquiry_items, intervention_items)
    unit: Optional(pa.string())  # of numeric_value of an inquiry, of `dose` of an intervention
    source: Optional(pa.string())  # the code it had in the source
    result_time: Optional(pa.timestamp("us"))
    end_time: Optional(pa.timestamp("us"))
    kind: Optional(pa.string())
    dose: Optional(pa.float32())
    rate: Optional(pa.float32())
    rate_unit: Optional(pa.string())
    route: Optional(pa.string())


class GeneratedTrajectorySchema(DataSchema):
    """Generated MEDS rows; `prediction_time`: the last time that input data was used from."""

    prediction_time: Required(pa.timestamp("us"), nullable=False)
