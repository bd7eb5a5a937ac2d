"""The families of detectors by what tests ask of them."""

from ladle.families import families

DENSE = {name: one for name, one in families().items() if not one.regions}
"""The families in one stage, by name."""
IN_STAGES = {name: one for name, one in families().items() if one.regions}
"""Those in several stages."""
HOME = {name: type(one.assigner).__name__ for name, one in DENSE.items()}
"""The assigner that each family in one stage was published with."""
