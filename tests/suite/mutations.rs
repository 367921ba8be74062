//! Generated damage to every kind of file that the command reads, through the real command: it says
//! what is wrong and ends with the code for it, it never panics, and it leaves no output.
//!
//! With --nocapture it prints the table in `docs/reliability.md`.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::support::{Model, Run, Tensor, Workspace, noise, tiny_llama};

/// Numbers that look random.
struct Draw(u64);

impl Draw {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 20) as usize % bound.max(1)
    }
}

/// What became of the mutations of one kind: how many ended with which code.
type Table = BTreeMap<String, BTreeMap<i32, usize>>;

/// A model of a few kilobytes in two shards.
fn small() -> Workspace {
    let matrix =
        |rows: usize, cols: usize, seed| Tensor::f32(&[rows, cols], &noise(rows * cols, seed));
    let mut tensors: BTreeMap<String, Tensor> = BTreeMap::new();
    for (i, name) in ["q_proj", "k_proj", "o_proj"].iter().enumerate() {
        let name = format!("model.layers.0.self_attn.{name}.weight");
        tensors.insert(name, matrix(32, 32, i as u64 + 1));
    }
    tensors.insert("model.embed_tokens.weight".to_owned(), matrix(64, 32, 9));
    tensors.insert("model.norm.weight".to_owned(), Tensor::f32(&[32], &[1.0; 32]));
    let config = serde_json::json!({ "model_type": "llama", "hidden_size": 32, "vocab_size": 64 });
    let workspace = Workspace::new();
    Model { tensors, config }.write(&workspace.path("model"), 2, &tiny_llama());
    workspace
}

/// One change to some bytes: a flipped bit, a cut, something inserted, a block of zeros or ones, two
/// pieces exchanged, a number replaced by an extreme one.
fn mutate(bytes: &[u8], draw: &mut Draw) -> (&'static str, Vec<u8>) {
    let mut out = bytes.to_vec();
    let at = draw.below(out.len());
    match draw.below(7) {
        0 => {
            out[at] ^= 1 << draw.below(8);
            ("bit flipped", out)
        }
        1 => {
            out.truncate(at);
            ("cut short", out)
        }
        2 => {
            let junk: Vec<u8> = (0..1 + draw.below(40)).map(|_| draw.below(256) as u8).collect();
            out.splice(at..at, junk);
            ("bytes inserted", out)
        }
        3 => {
            let end = (at + 1 + draw.below(64)).min(out.len());
            out[at..end].fill(0);
            ("zeros", out)
        }
        4 => {
            let end = (at + 1 + draw.below(64)).min(out.len());
            out[at..end].fill(0xff);
            ("ones", out)
        }
        5 => {
            let end = (at + 1 + draw.below(200)).min(out.len());
            out.drain(at..end);
            ("bytes removed", out)
        }
        _ => {
            let digits: Vec<usize> = (0..out.len()).filter(|&i| out[i].is_ascii_digit()).collect();
            let Some(&start) = digits.get(draw.below(digits.len())) else { return ("none", out) };
            let end = (start..out.len()).find(|&i| !out[i].is_ascii_digit()).unwrap_or(out.len());
            let extremes = ["0", "-1", "18446744073709551615", "1e308", "99999999999999999999999"];
            let extreme = extremes[draw.below(extremes.len())];
            out.splice(start..end, extreme.bytes());
            ("extreme number", out)
        }
    }
}

/// Damages `file` of `workspace` in `count` ways, the first `head` bytes of it only, and runs
/// `command` each time. `allowed` are the codes that it may end with beside 0.
fn damage(
    table: &mut Table,
    workspace: &Workspace,
    file: &str,
    (count, head): (usize, usize),
    allowed: &[i32],
    command: &dyn Fn(&Workspace) -> Run,
) {
    let path = workspace.path(file);
    let whole = fs::read(&path).unwrap();
    let head = head.min(whole.len());
    let mut draw = Draw(0x2545_f491_4f6c_dd1d ^ whole.len() as u64);
    let before = workspace.names();
    for i in 0..count {
        let (how, mut bytes) = mutate(&whole[..head], &mut draw);
        if how != "cut short" {
            bytes.extend_from_slice(&whole[head..]);
        }
        fs::write(&path, &bytes).unwrap();
        let run = command(workspace);
        let told = || format!("{file}, mutation {i} ({how}): {run:?}");
        assert!(!run.stderr.contains("panicked"), "{}", told());
        assert!(run.code == 0 || allowed.contains(&run.code), "{}", told());
        if run.code == 0 {
            // It changed a weight, a blank or a key that nobody reads.
            let _ = fs::remove_dir_all(workspace.path("out"));
        } else {
            assert!(run.stderr.contains("error: "), "{}", told());
        }
        assert_eq!(workspace.names(), before, "left behind: {}", told());
        *table.entry(file.to_owned()).or_default().entry(run.code).or_default() += 1;
    }
    fs::write(&path, whole).unwrap();
}

fn header_len(path: &Path) -> usize {
    let bytes = fs::read(path).unwrap();
    8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize
}

#[test]
fn damage_is_refused_and_never_a_panic() {
    let mut table = Table::new();
    let workspace = small();
    let compress = |workspace: &Workspace| {
        workspace.run("compress", "model", &["-o", "out", "--preset", "on-device"])
    };
    compress(&workspace).ok();
    fs::remove_dir_all(workspace.path("out")).unwrap();
    let shard = "model/model-00001-of-00002.safetensors";
    let header = header_len(&workspace.path(shard));
    let index = "model/model.safetensors.index.json";
    damage(&mut table, &workspace, shard, (90, header), &[3, 4], &compress);
    damage(&mut table, &workspace, index, (60, usize::MAX), &[3, 4], &compress);
    damage(&mut table, &workspace, "model/config.json", (50, usize::MAX), &[3, 4], &compress);

    // What the tool itself wrote, and wrote for others.
    let server = ["-o", "packed", "--preset", "server", "--quiet"];
    workspace.run("compress", "model", &server).ok();
    let decompress = |workspace: &Workspace| workspace.run("decompress", "packed", &["-o", "out"]);
    let packed = "packed/model.safetensors";
    let header = header_len(&workspace.path(packed));
    damage(&mut table, &workspace, packed, (40, header), &[3, 4], &decompress);
    damage(&mut table, &workspace, "packed/manifest.json", (60, usize::MAX), &[3, 4], &decompress);
    let adapter = "packed/adapter_model.safetensors";
    let header = header_len(&workspace.path(adapter));
    damage(&mut table, &workspace, adapter, (40, header), &[3, 4], &decompress);
    let config = "packed/adapter_config.json";
    damage(&mut table, &workspace, config, (40, usize::MAX), &[3, 4], &decompress);
    let verify = |workspace: &Workspace| workspace.run("verify", "packed", &[]);
    damage(&mut table, &workspace, packed, (40, usize::MAX), &[3, 4, 6], &verify);

    // A recipe is the user's own: what is wrong with it is a usage error.
    let recipe = "[[rule]]\nrole = [\"linear\"]\ncodec = \"grid2\"\ngroup = 32\n\
                  [[rule]]\nmatch = \"embed.*\"\ncodec = \"int4\"\noptional = true\n";
    fs::write(workspace.path("recipe.toml"), recipe).unwrap();
    let by_recipe = |workspace: &Workspace| {
        workspace.run("compress", "model", &["-o", "out", "--recipe", "recipe.toml"])
    };
    by_recipe(&workspace).ok();
    fs::remove_dir_all(workspace.path("out")).unwrap();
    let refused = &[2, 3, 4];
    damage(&mut table, &workspace, "recipe.toml", (60, usize::MAX), refused, &by_recipe);

    let units = ["--preset", "on-device", "--units", "2", "-o", "units.json"];
    workspace.run("plan", "model", &units).ok();
    let work = |workspace: &Workspace| {
        let run = workspace.run("work", "units.json", &["--unit", "0", "-o", "pieces"]);
        let _ = fs::remove_dir_all(workspace.path("pieces"));
        run
    };
    damage(&mut table, &workspace, "units.json", (60, usize::MAX), &[2, 3, 4], &work);

    let mut total = 0;
    println!("| file | mutations | refused (2, 3, 4 or 6) | harmless |\n|---|---|---|---|");
    for (file, codes) in &table {
        let all: usize = codes.values().sum();
        let harmless = codes.get(&0).copied().unwrap_or(0);
        println!("| {file} | {all} | {} | {harmless} |", all - harmless);
        total += all;
    }
    println!("{total} mutations: {table:?}");
    assert!(total >= 200);
    let refused: usize =
        table.values().flatten().filter(|(code, _)| **code != 0).map(|(_, n)| n).sum();
    assert!(2 * refused > total, "most damage is noticed: {refused} of {total}");
}

/// A tokenizer is read by a library; whatever is in it, the command ends with words.
#[test]
#[cfg(feature = "model")]
fn damaged_tokenizers_and_texts() {
    let workspace = Workspace::with_tiny_llama(1);
    let mut table = Table::new();
    fs::write(workspace.path("text"), "Once upon a time there was a small model. ".repeat(40))
        .unwrap();
    let eval = |workspace: &Workspace| {
        workspace.run("eval", "model", &["--text", "text", "--ctx", "32", "--windows", "1"])
    };
    eval(&workspace).ok();
    damage(&mut table, &workspace, "model/tokenizer.json", (24, 6000), &[3, 4], &eval);
    damage(&mut table, &workspace, "model/config.json", (24, usize::MAX), &[3, 4], &eval);
    damage(&mut table, &workspace, "text", (12, usize::MAX), &[3, 4], &eval);
    println!("{table:?}");
}

/// A file of a hundred bytes must not make the command ask for gigabytes.
#[test]
fn small_files_take_little_memory() {
    let claims: [&[u8]; 3] = [
        br#"{"a.weight":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,4]}}"#,
        br#"{"a.weight":{"dtype":"F32","shape":[1000000000,1],"data_offsets":[0,4000000000]}}"#,
        br#"{"a.weight":{"dtype":"F32","shape":[0,18446744073709551615],"data_offsets":[0,0]}}"#,
    ];
    for header in claims {
        let workspace = Workspace::with_tensors(&[("a.weight", Tensor::f32(&[1, 1], &[1.0]))]);
        let mut file = (header.len() as u64).to_le_bytes().to_vec();
        file.extend(header);
        fs::write(workspace.path("model/model.safetensors"), file).unwrap();
        // A shell that allows 300 MB of addresses, where Linux has such a limit.
        let script = "ulimit -v 300000 2>/dev/null; exec \"$0\" inspect model";
        let output = std::process::Command::new("sh")
            .args(["-c", script, env!("CARGO_BIN_EXE_compress-model")])
            .args(["-t", "1"])
            .current_dir(workspace.path(""))
            .output()
            .unwrap();
        let code = output.status.code();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(code == Some(3) || code == Some(0), "{code:?} {said}");
    }
}

/// Found by fuzzing: the tokenizers library panics where the JSON breaks off inside a decoder.
#[test]
#[cfg(feature = "model")]
fn a_tokenizer_on_which_its_library_panics() {
    let workspace = Workspace::with_tiny_llama(1);
    fs::write(workspace.path("text"), "Once upon a time. ".repeat(40)).unwrap();
    let tokenizer = br#"{"decoder":{"type":"ByteLevel","trim_offsets":trlse}}"#;
    fs::write(workspace.path("model/tokenizer.json"), tokenizer).unwrap();
    let args = ["--text", "text", "--ctx", "32"];
    workspace.run("eval", "model", &args).fails(3, &["tokenizer.json", "gives up on it"]);
}
