"""The laws that every assigner and every distiller obeys, those of this library and your own.

Each law is a function that takes an assigner or a distiller and raises AssertionError where it is broken::

    @pytest.mark.parametrize("law", ASSIGNER_LAWS, ids=lambda law: law.__name__)
    def test_my_assigner_obeys(law):
        law(MyAssigner())
"""

from ladle.testing.assigner_laws import (
    ASSIGNER_LAWS,
    a_crowded_image_fits_in_a_gibibyte,
    a_hard_plan_gives_a_prior_one_role,
    an_image_without_objects_is_all_background,
    bad_predictions_do_not_spread,
    crowds_are_neither_objects_nor_background,
    half_precision_decides_nothing,
    images_do_not_talk_to_each_other,
    inputs_are_left_alone,
    it_compiles_into_one_graph,
    moving_the_scene_by_a_stride_moves_the_plan,
    order_of_objects_does_not_matter,
    padding_changes_nothing,
    same_inputs_give_the_same_plan,
)
from ladle.testing.distiller_laws import (
    DISTILLER_LAWS,
    agreement_is_the_minimum,
    invalid_priors_are_ignored,
    terms_are_finite,
    the_teacher_gets_no_gradient,
)
from ladle.testing.scenes import example_network, example_output, example_scene, grid_priors

__all__ = [
    "ASSIGNER_LAWS",
    "DISTILLER_LAWS",
    "a_crowded_image_fits_in_a_gibibyte",
    "a_hard_plan_gives_a_prior_one_role",
    "agreement_is_the_minimum",
    "an_image_without_objects_is_all_background",
    "bad_predictions_do_not_spread",
    "crowds_are_neither_objects_nor_background",
    "example_network",
    "example_output",
    "example_scene",
    "grid_priors",
    "half_precision_decides_nothing",
    "images_do_not_talk_to_each_other",
    "inputs_are_left_alone",
    "invalid_priors_are_ignored",
    "it_compiles_into_one_graph",
    "moving_the_scene_by_a_stride_moves_the_plan",
    "order_of_objects_does_not_matter",
    "padding_changes_nothing",
    "same_inputs_give_the_same_plan",
    "terms_are_finite",
    "the_teacher_gets_no_gradient",
]
