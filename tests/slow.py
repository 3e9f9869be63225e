"""The names of tests that take seconds, which `pytest -m "not slow"` leaves out, with all that they are parametrised by."""

SLOW = {
    # every optimiser, layer and option, beside what is written by hand or by others
    "test_attention",
    "test_compute_dtype_is_apart_from_parameter_dtype",
    "test_conv",
    "test_conv_transpose",
    "test_conv_transpose_with_same_padding_undoes_the_shape_of_a_conv",
    "test_conv_with_same_padding",
    "test_draws_have_the_distribution_of_the_frameworks_own",
    "test_draws_in_one_pass_have_jaxs_own_bits",
    "test_every_optimiser_sees_one_leaf",
    "test_law_3_optax_and_donation_keep_it",
    "test_law_4_the_gradient_of_a_tied_leaf_is_the_sum_over_the_untied_copies",
    "test_nothing_is_given_up_for_compiled_calls",
    "test_nothing_that_jax_does_breaks_a_tie",
    "test_pools",
    "test_recurrent",
    "test_sharded_values_are_those_of_one_device",
    "test_the_contributions_of_all_names_add_up_to_the_gradient",
    "test_the_forward_pass_is_the_one_by_hand_bit_for_bit",
    # processes of their own, killed or measured
    "test_a_reader_and_two_savers_at_once",
    "test_killed_again_and_again_it_trains_as_if_it_had_never_been",
    "test_killed_while_it_saves_shards_one_whole_tree_is_there",
    "test_killed_while_it_saves_the_old_file_or_the_new_one_is_there",
    "test_load_needs_the_memory_of_what_it_gives",
    "test_mapped_leaves_need_none",
    "test_save_of_sharded_leaves_needs_the_memory_of_one_leaf",
    # very large trees
    "test_a_million_paths_have_a_million_keys",
    "test_ten_thousand_names_that_do_not_fit_are_told_and_few_are_looked_at",
    "test_ties_of_ties_cannot_explode",
}
