//! Mistakes at the command line, and whether what is said of them helps.

use std::fs;

use crate::support::{Workspace, fixture, run};

#[test]
fn what_is_not_there_is_said_alike_by_every_command() {
    let model = fixture("tiny-llama");
    let text = fixture("eval_cc0.txt");
    let mut commands = vec![
        vec!["inspect", "nope"],
        vec!["plan", "nope", "--preset", "server"],
        vec!["compress", "nope", "-o", "out", "--preset", "server"],
        vec!["compress", &model, "-o", "out", "--recipe", "nope"],
        vec!["decompress", "nope", "-o", "out"],
        vec!["verify", "nope"],
        vec!["export", "nope", "--format", "mlx", "-o", "out"],
        vec!["view", "nope"],
        vec!["work", "nope", "--unit", "0", "-o", "out"],
    ];
    if cfg!(feature = "model") {
        commands.extend([
            vec!["calibrate", "nope", "--text", &text, "-o", "out"],
            vec!["calibrate", &model, "--text", "nope", "-o", "out"],
            vec!["compress", &model, "-o", "out", "--preset", "server", "--calibration", "nope"],
            vec!["eval", "nope", "--text", &text],
            vec!["eval", &model, "--text", "nope"],
            vec!["eval", &model, "--against", "nope", "--text", &text],
            vec!["eval", &model, "--tasks", "nope"],
            vec!["generate", "nope", "--prompt", "a"],
            vec!["qat", "nope", "--text", &text, "-o", "out"],
            vec!["qat", &model, "--text", "nope", "-o", "out"],
            vec!["recover", "nope", "--against", &model, "--text", &text, "-o", "out"],
        ]);
    }
    let workspace = Workspace::new();
    for command in commands {
        let run = workspace.run(command[0], command[1], &command[2..]);
        let said = run.stderr.replace("such file or directory", "such file or folder");
        assert!(
            said.contains("nope: ") && said.contains("o such file or folder"),
            "{command:?}: {said}"
        );
        assert_eq!(run.code, 4, "{command:?}: {said}");
    }
    assert!(workspace.names().is_empty());
    // What reads like a name of the Hub is told from a path.
    run(["inspect", "Qwen/Qwen3-0.6B"]).fails(4, &["hf download Qwen/Qwen3-0.6B"]);
}

#[test]
fn flags_that_say_nothing_are_refused() {
    let workspace = Workspace::with_tiny_llama(1);
    workspace.run("compress", "model", &["-o", "out", "--preset", "on-device"]).ok();
    let export = |format: &str, more: &[&str]| {
        workspace.run("export", "out", &[&["--format", format, "-o", "x"][..], more].concat())
    };
    export("gguf", &["--tensor", "q_proj"]).fails(2, &["--tensor", "--format gguf"]);
    export("gguf", &["--max-shard-size", "1GB"]).fails(2, &["--max-shard-size"]);
    export("mlx", &["--max-dimension", "64"]).fails(2, &["--max-dimension"]);
    export("ktx2", &["--exact"]).fails(2, &["--exact", "--format ktx2"]);
    export("astc", &["--dtype", "f32"]).fails(2, &["--dtype"]);
    export("mlx-adapter", &["--adapters", "merge"]).fails(2, &["--adapters", "mlx-adapter"]);
    if cfg!(feature = "model") {
        let windows = ["-o", "x", "--preset", "server", "--calibration-windows", "4"];
        workspace.run("compress", "model", &windows).fails(2, &["--calibration-windows"]);
        let text = fixture("eval_cc0.txt");
        let qat = ["--text", &text, "-o", "x", "--start", "out", "--ignore", "q_proj"];
        workspace.run("qat", "model", &qat).fails(2, &["--ignore", "--start"]);
        let top = workspace.run("generate", "model", &["--prompt", "a", "--top-k", "4"]);
        assert_eq!(top.code, 2);
        assert!(top.stderr.contains("--temperature"), "{}", top.stderr);
    }
    assert_eq!(workspace.names(), ["model", "out"]);
}

#[test]
fn patterns_and_values_that_are_wrong_say_what_is_right() {
    let workspace = Workspace::with_tiny_llama(1);
    let plan = |more: &[&str]| {
        workspace.run("plan", "model", &[&["--preset", "server"][..], more].concat())
    };
    let run = plan(&["--ignore", "lm_haed"]).fails(2, &["--ignore lm_haed", "inspect"]);
    assert!(!run.stderr.contains("optional"), "{}", run.stderr);
    plan(&["--tensor-type", "no_such=int4"]).fails(2, &["--tensor-type no_such=int4"]);
    plan(&["--ignore", "*q_proj"]).fails(2, &["regular expression", ".*"]);
    for size in ["4G", "4gb", "4GiB", "4000000000"] {
        plan(&["--max-shard-size", size]).ok();
    }
    let run = plan(&["--max-shard-size", "much"]);
    assert!(run.code == 2 && run.stderr.contains("5GB"), "{}", run.stderr);
    let run = plan(&["--threads", "0"]);
    assert!(run.code == 2 && run.stderr.contains("1 or more"), "{}", run.stderr);
    let run = plan(&["--threads", "20000"]).ok();
    assert!(run.stderr.contains("--threads 20000") && run.stderr.contains("are started"));

    workspace.run("compress", "model", &["-o", "out", "--preset", "on-device"]).ok();
    workspace.run("decompress", "out", &["-o", "plain", "--dtype", "bfloat16"]).ok();
    let tensor = workspace.run("export", "out", &["--format", "astc", "-o", "x", "--tensor", "*"]);
    assert!(tensor.code == 2 && tensor.stderr.contains(".*"), "{}", tensor.stderr);
}

#[test]
fn pointers_of_git_lfs_are_known() {
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 536870912\n";
    for name in ["model.safetensors", "config.json", "tokenizer.json"] {
        let workspace = Workspace::with_tiny_llama(1);
        fs::write(workspace.path("model").join(name), pointer).unwrap();
        let run = match name {
            "tokenizer.json" if cfg!(feature = "model") => {
                workspace.run("generate", "model", &["--prompt", "a"])
            }
            "tokenizer.json" => continue,
            _ => workspace.run("inspect", "model", &[]),
        };
        run.fails(3, &[name, "Git LFS pointer", "git lfs pull"]);
    }
}

#[test]
fn a_big_endian_gguf_file_is_called_that() {
    let workspace = Workspace::new();
    let mut file = b"GGUF".to_vec();
    file.extend(3_u32.to_be_bytes());
    file.extend([0; 16]);
    fs::write(workspace.path("model.gguf"), file).unwrap();
    workspace.run("inspect", "model.gguf", &[]).fails(3, &["model.gguf", "big-endian"]);
}

#[cfg(unix)]
#[test]
fn files_that_cannot_be_copied_are_known_before_the_work() {
    let workspace = Workspace::with_tiny_llama(1);
    let tokenizer = workspace.path("model").join("tokenizer.json");
    fs::remove_file(&tokenizer).unwrap();
    std::os::unix::fs::symlink("nowhere", &tokenizer).unwrap();
    let args = ["-o", "out", "--preset", "on-device", "-vv"];
    let run = workspace.run("compress", "model", &args);
    assert_eq!(run.code, 4, "{run:?}");
    assert!(run.stderr.contains("tokenizer.json") && !run.stderr.contains("checking took"));
    assert_eq!(workspace.names(), ["model"]);
}
