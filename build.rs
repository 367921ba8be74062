//! Tells the program which commit it was built from.

use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=COMPRESS_MODEL_COMMIT");
    let commit = match std::env::var("COMPRESS_MODEL_COMMIT") {
        Ok(commit) => Some(commit),
        // A debug build would be made anew after every commit.
        Err(_) if std::env::var("PROFILE").is_ok_and(|profile| profile == "release") => {
            println!("cargo::rerun-if-changed=.git/HEAD");
            println!("cargo::rerun-if-changed=.git/logs/HEAD");
            git(&["rev-parse", "--short=12", "HEAD"])
        }
        Err(_) => None,
    };
    println!("cargo::rustc-env=BUILD_COMMIT={}", commit.as_deref().unwrap_or("unknown"));
    let target = std::env::var("TARGET").unwrap_or_default();
    println!("cargo::rustc-env=BUILD_TARGET={target}");
}

/// What git says in the folder of the package; nothing outside a checkout.
fn git(args: &[&str]) -> Option<String> {
    let output = Command::new("git").args(args).output().ok().filter(|o| o.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
}
