//! What the command prints: help, plans and reports, held by snapshots.

use crate::support::{Workspace, run};

// Without the GPU there are fewer flags, without the model fewer commands.
#[cfg(all(feature = "gpu", feature = "model"))]
#[test]
fn help() {
    let mut text = run(["--help"]).ok().stdout;
    let subcommands = [
        "inspect",
        "plan",
        "compress",
        "decompress",
        "verify",
        "eval",
        "generate",
        "gpu-info",
        "export",
        "view",
    ];
    for subcommand in subcommands {
        text += &format!("\n=== {subcommand}\n\n{}", run([subcommand, "--help"]).ok().stdout);
    }
    insta::assert_snapshot!(text);
}

#[test]
fn plans() {
    let workspace = Workspace::with_tiny_llama(1);
    for preset in ["on-device", "server", "server-desktop"] {
        let args = ["--preset", preset, "--threads", "2"];
        let text = workspace.run("plan", "model", &args).ok().stdout;
        insta::assert_snapshot!(format!("plan {preset}"), text);
        let mut plan =
            workspace.run("plan", "model", &[&args[..], &["--json"]].concat()).ok().json();
        // The text shows every tensor; one of each kind is enough here.
        let tensors = plan["tensors"].as_array_mut().unwrap();
        let mut seen = std::collections::HashSet::new();
        tensors.retain(|t| seen.insert((t["role"].to_string(), t["becomes"].to_string())));
        insta::assert_json_snapshot!(format!("plan {preset} json"), plan);
    }
}

#[test]
fn usage_errors() {
    assert_eq!(run(["compress"]).code, 2);
    assert_eq!(run(["frobnicate"]).code, 2);
    assert_eq!(run(["plan", "x", "--preset", "nonsense"]).code, 2);
    assert_eq!(
        run(["--version"]).ok().stdout,
        concat!("compress-model ", env!("CARGO_PKG_VERSION"), "\n")
    );
    let workspace = Workspace::with_tiny_llama(1);
    std::fs::write(workspace.path("r.toml"), "[[rule]]\nmatch = 'x'\ncodec = 'grid3'\n").unwrap();
    workspace
        .run("plan", "model", &["--recipe", "r.toml"])
        .fails(2, &["r.toml", "rule 1", "grid3", "grid2"]);
    workspace.run("plan", "model", &["--recipe", "none.toml"]).fails(4, &["none.toml"]);
}

#[test]
fn results_on_stdout_and_nothing_else() {
    let workspace = Workspace::with_tiny_llama(1);
    let run =
        workspace.run("compress", "model", &["-o", "out", "--preset", "on-device", "--json"]).ok();
    assert_eq!(run.stderr, "");
    let report = run.json();
    assert_eq!(report["totals"]["tied"], 0);
    let verbose = workspace
        .run("compress", "model", &["-o", "out", "--preset", "on-device", "--overwrite", "-v"])
        .ok();
    assert!(verbose.stderr.contains("model.norm.weight [160] F32 kept: too small to matter"));
    assert_eq!(
        verbose.stderr.lines().count(),
        report["totals"]["coded"].as_u64().unwrap() as usize
            + report["totals"]["kept"].as_u64().unwrap() as usize
    );
}
