//! Standard streams that are closed, full or gone, and the signals that come with them.
#![cfg(unix)]

use std::fs::{self, File};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::support::{Workspace, tiny_llama};

fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_compress-model"));
    command.env_clear();
    command
}

/// A pipe that nobody reads.
fn closed() -> Stdio {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    writer.into()
}

/// A disk without room.
fn full() -> Stdio {
    File::options().write(true).open("/dev/full").unwrap().into()
}

#[test]
fn no_message_is_worth_a_run() {
    let workspace = Workspace::with_tiny_llama(1);
    let compress = |stderr: Stdio, out: &str| {
        let args = ["compress", "model", "-o", out, "--preset", "on-device", "-vv"];
        let mut command = command();
        command.current_dir(workspace.path("")).args(args).stdout(Stdio::null()).stderr(stderr);
        assert_eq!(command.status().unwrap().code(), Some(0), "{out}");
        workspace.files(out)
    };
    let expected = compress(Stdio::null(), "out");
    assert!(compress(closed(), "closed") == expected);
    assert!(compress(full(), "full") == expected);
    // Errors keep their exit codes.
    for stderr in [closed(), full()] {
        let status = command().args(["inspect", "/nowhere"]).stderr(stderr).status().unwrap();
        assert_eq!(status.code(), Some(4));
        let status = command().arg("inspect").stderr(closed()).status().unwrap();
        assert_eq!(status.code(), Some(2));
    }
}

#[test]
fn results_that_nobody_reads_are_no_failure_and_those_that_are_lost_are() {
    for json in [&["--json"][..], &[]] {
        let inspect = |stdout: Stdio| {
            let mut command = command();
            command.arg("inspect").arg(tiny_llama()).args(json).stdout(stdout);
            let output = command.output().unwrap();
            (output.status.code(), String::from_utf8(output.stderr).unwrap())
        };
        assert_eq!(inspect(closed()), (Some(0), String::new()));
        let (code, said) = inspect(full());
        assert_eq!(code, Some(4));
        assert!(said.contains("cannot write to stdout"), "{said}");
    }
}

/// Starts a run by `shell`, in which `$0` is the program and `$@` its arguments, sends SIGHUP once the
/// journal has a line, and gives the exit code.
fn hung_up(workspace: &Workspace, shell: &str) -> Option<i32> {
    let mut child = Command::new("sh")
        .args(["-c", shell, env!("CARGO_BIN_EXE_compress-model")])
        .args(["compress", "model", "-o", "out", "--preset", "server", "-t", "2"])
        .current_dir(workspace.path(""))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let journal = workspace.path(".out.partial").join("journal.jsonl");
    while !fs::metadata(&journal).is_ok_and(|journal| journal.len() > 0) {
        assert!(child.try_wait().unwrap().is_none(), "ended too early");
        std::thread::sleep(Duration::from_millis(2));
    }
    Command::new("kill").args(["-HUP", &child.id().to_string()]).status().unwrap();
    child.wait().unwrap().code()
}

#[test]
fn a_hang_up_stores_the_run_unless_it_was_started_to_outlive_it() {
    let workspace = Workspace::with_tiny_llama(1);
    assert_eq!(hung_up(&workspace, "exec \"$0\" \"$@\""), Some(75));
    let restart = ["-o", "out", "--preset", "server", "--restart", "-t", "2"];
    workspace.run("compress", "model", &restart).ok();
    let expected = workspace.files("out");
    fs::remove_dir_all(workspace.path("out")).unwrap();
    assert_eq!(hung_up(&workspace, "trap '' HUP; exec \"$0\" \"$@\""), Some(0));
    assert!(workspace.files("out") == expected);
}

#[test]
fn messages_are_coloured_on_terminals_only_and_more_verbose_says_more() {
    let workspace = Workspace::with_tiny_llama(1);
    let said = |flags: &[&str]| {
        let args = ["-o", "out", "--preset", "on-device", "--overwrite"];
        workspace.run("compress", "model", &[&args[..], flags].concat()).ok().stderr
    };
    let [quiet, once, twice] = [said(&[]), said(&["-v"]), said(&["-vv"])];
    assert!(!twice.contains('\x1b'), "{twice}");
    let lines = |text: &str| text.lines().count();
    assert!(lines(&quiet) < lines(&once) && lines(&once) < lines(&twice), "{once}\n---\n{twice}");
}

#[test]
fn pipes_in_the_place_of_files_are_refused() {
    for name in ["config.json", "model.safetensors", "tokenizer.json"] {
        let workspace = Workspace::with_tiny_llama(1);
        let path = workspace.path("model").join(name);
        fs::remove_file(&path).unwrap();
        assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
        let run = workspace.run("compress", "model", &["-o", "out", "--preset", "on-device"]);
        run.fails(3, &[name, "is not a regular file"]);
    }
    let workspace = Workspace::new();
    let path = workspace.path("pipe");
    assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
    workspace.run("inspect", "pipe", &[]).fails(3, &["pipe", "is a file"]);
}
