//! A recipe, and what it makes of names.
#![no_main]

use compress_model::checkpoint::role::Role;
use compress_model::recipe::Recipe;
use compress_model_fuzz as _;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(recipe) = Recipe::parse(text, "fuzz") {
        let _ = recipe.rule("model.layers.0.mlp.up_proj.weight", Role::Linear);
        let again = Recipe::parse(&recipe.to_toml(), "again").expect("what it writes it reads");
        assert_eq!(again.to_toml(), recipe.to_toml());
    }
});
