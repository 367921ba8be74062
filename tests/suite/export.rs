//! Exported textures, read back by independent readers.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::support::{Model, Workspace, tiny_llama};
use compress_model_astc::Footprint;
use compress_model_astc::decode::{Profile, decode_fp16};
use half::f16;
use safetensors::SafeTensors;
use serde_json::Value;

/// A compressed folder `out` with ASTC matrices in layer 0 and stacked experts, BC4 elsewhere.
fn compressed() -> Workspace {
    let workspace = Workspace::new();
    let model = Model::read(&tiny_llama()).stacked_experts(4);
    model.write(&workspace.path("model"), 1, &tiny_llama());
    let mut args = vec!["-o", "out", "--preset", "server-desktop"];
    for rule in [
        "experts=astc:footprint=8x5,effort=fast",
        "layers\\.0\\..*attn.*proj=astc:effort=fast",
        "proj=bc4:effort=fast",
    ] {
        args.extend(["--tensor-type", rule]);
    }
    workspace.run("compress", "model", &args).ok();
    workspace
}

fn index(folder: &Path) -> Value {
    serde_json::from_slice(&fs::read(folder.join("index.json")).unwrap()).unwrap()
}

fn size(value: &Value) -> usize {
    usize::try_from(value.as_u64().unwrap()).unwrap()
}

/// Texels of a block, bytes of a block, and the format's number, by its Vulkan name.
fn block_of(entry: &Value) -> (usize, usize, usize, u32) {
    match entry["vk_format"].as_str().unwrap() {
        "VK_FORMAT_BC4_UNORM_BLOCK" => (4, 4, 8, ktx2::Format::BC4_UNORM_BLOCK.value()),
        "VK_FORMAT_ASTC_6x6_UNORM_BLOCK" => (6, 6, 16, ktx2::Format::ASTC_6x6_UNORM_BLOCK.value()),
        "VK_FORMAT_ASTC_8x5_UNORM_BLOCK" => (8, 5, 16, ktx2::Format::ASTC_8x5_UNORM_BLOCK.value()),
        other => panic!("{other}"),
    }
}

/// Each stored block with its place in the texture, by the rule of docs/gpu.md.
fn expected_blocks(entry: &Value, stored: &[u8]) -> Vec<(usize, Vec<u8>)> {
    let shape: Vec<usize> = entry["shape"].as_array().unwrap().iter().map(size).collect();
    let [.., rows, cols] = shape[..] else { panic!() };
    let matrices: usize = shape[..shape.len() - 2].iter().product();
    let (w, h, bytes, _) = block_of(entry);
    let (down, across) = (rows.div_ceil(h), cols.div_ceil(w));
    let tile = (size(&entry["width"]).div_ceil(w), size(&entry["height"]).div_ceil(h));
    let tiles = (size(&entry["tiles_across"]), size(&entry["tiles_down"]));
    assert_eq!(size(&entry["layers"]), matrices * tiles.0 * tiles.1);
    let mut blocks = Vec::new();
    for (number, block) in stored.chunks_exact(bytes).enumerate() {
        let (matrix, row, col) =
            (number / (down * across), number / across % down, number % across);
        let layer = (matrix * tiles.1 + row / tile.1) * tiles.0 + col / tile.0;
        let at = (layer * tile.1 + row % tile.1) * tile.0 + col % tile.0;
        blocks.push((at * bytes, block.to_vec()));
    }
    assert_eq!(blocks.len(), matrices * down * across);
    blocks
}

fn check_ktx2(entry: &Value, file: &[u8], stored: &SafeTensors<'_>) {
    let name = entry["name"].as_str().unwrap();
    let reader = ktx2::Reader::new(file).unwrap();
    let header = reader.header();
    let (.., bytes, format) = block_of(entry);
    let (descriptor, type_size) = ktx2::dfd::Basic::from_format(header.format.unwrap()).unwrap();
    assert_eq!(header.format.unwrap().value(), format);
    assert_eq!(reader.basic_dfd().unwrap(), &descriptor, "{name}");
    assert_eq!(header.type_size, type_size);
    assert_eq!(header.pixel_width as usize, size(&entry["width"]));
    assert_eq!(header.pixel_height as usize, size(&entry["height"]));
    assert_eq!(header.layer_count.max(1) as usize, size(&entry["layers"]));
    assert_ne!(header.layer_count, 1, "one layer is no array");
    assert_eq!((header.pixel_depth, header.face_count, header.level_count), (0, 1, 1));
    assert_eq!(header.supercompression_scheme, None);

    let values: Vec<(&str, &[u8])> = reader.key_value_data().collect();
    assert!(values.is_sorted_by_key(|(key, _)| *key));
    let value = |key| values.iter().find(|(known, _)| *known == key).unwrap().1;
    let text = |key| std::str::from_utf8(value(key).strip_suffix(&[0]).unwrap()).unwrap();
    assert!(text("KTXwriter").starts_with("compress-model "));
    assert_eq!(text("compress-model.tensor"), name);
    assert_eq!(text("compress-model.codec"), entry["codec"].as_str().unwrap());
    assert_eq!(text("compress-model.decode"), entry["decode"].as_str().unwrap());
    let shape: Vec<String> =
        entry["shape"].as_array().unwrap().iter().map(Value::to_string).collect();
    assert_eq!(text("compress-model.shape"), shape.join("x"));
    let tiles = format!("{}x{}", entry["tiles_down"], entry["tiles_across"]);
    assert_eq!(text("compress-model.tiles"), tiles);
    let scales = stored.tensor(&format!("{name}.scales")).unwrap();
    assert_eq!(value("compress-model.scales"), scales.data());

    let levels: Vec<ktx2::Level<'_>> = reader.levels().collect();
    let data = levels[0].data;
    assert_eq!(levels.len(), 1);
    assert_eq!(levels[0].uncompressed_byte_length as usize, data.len());
    assert_eq!((data.as_ptr() as usize - file.as_ptr() as usize) % bytes, 0, "aligned");
    let blocks = stored.tensor(name).unwrap();
    for (at, block) in expected_blocks(entry, blocks.data()) {
        assert_eq!(data[at..at + bytes], block, "{name}");
    }
    assert_eq!(blake3::hash(file).to_hex().as_str(), entry["blake3"].as_str().unwrap());
}

#[test]
fn ktx2_files_hold_blocks_scales_and_shape() {
    let workspace = compressed();
    let stored = fs::read(workspace.path("out").join("model.safetensors")).unwrap();
    let stored = SafeTensors::deserialize(&stored).unwrap();
    for (folder, limit, tiled) in [("whole", "16384", false), ("tiles", "100", true)] {
        let args = ["-o", folder, "--format", "ktx2", "--max-dimension", limit, "--json"];
        let report = workspace.run("export", "out", &args).ok().json();
        let folder = workspace.path(folder);
        let index = index(&folder);
        let entries = index["tensors"].as_array().unwrap();
        assert_eq!(size(&report["exported"]), entries.len());
        let formats: std::collections::BTreeSet<&str> =
            entries.iter().map(|entry| entry["vk_format"].as_str().unwrap()).collect();
        assert_eq!(formats.len(), 3, "{formats:?}");
        assert!(entries.iter().any(|entry| (size(&entry["tiles_down"]) > 1) == tiled));
        assert!(entries.iter().any(|entry| entry["shape"].as_array().unwrap().len() == 3));
        for entry in entries {
            let file = fs::read(folder.join(entry["file"].as_str().unwrap())).unwrap();
            check_ktx2(entry, &file, &stored);
        }
        // Every tensor of the source is accounted for.
        let left_out = index["left_out"].as_array().unwrap();
        let manifest = fs::read(workspace.path("out").join("manifest.json")).unwrap();
        let manifest: Value = serde_json::from_slice(&manifest).unwrap();
        assert_eq!(entries.len() + left_out.len(), manifest["tensors"].as_array().unwrap().len());
        let why = |name: &str| {
            left_out.iter().find(|t| t["name"].as_str().unwrap().contains(name)).unwrap()["why"]
                .clone()
        };
        assert_eq!(why("embed_tokens"), "codec int4 has no texture blocks");
        assert!(why("norm").as_str().unwrap().starts_with("kept: "));
    }
}

#[test]
fn selection_and_overwriting() {
    let workspace = compressed();
    let export = |args: &[&str]| workspace.run("export", "out", &[&["-o", "e"], args].concat());
    export(&["--format", "ktx2", "--tensor", "layers\\.1\\..*q_proj"]).ok();
    assert_eq!(index(&workspace.path("e"))["tensors"].as_array().unwrap().len(), 1);
    export(&["--format", "ktx2"]).fails(4, &["already exists"]);
    export(&["--format", "astc", "--overwrite"]).ok();
    let index = index(&workspace.path("e"));
    assert!(index["left_out"].to_string().contains(".astc files cannot hold bc4 blocks; use ktx2"));
    let entry = &index["tensors"][0];
    let npy = fs::read(workspace.path("e").join(entry["scales_file"].as_str().unwrap())).unwrap();
    assert!(npy.starts_with(b"\x93NUMPY\x01\x00"));

    export(&["--format", "ktx2", "--tensor", "norm", "--overwrite"])
        .fails(2, &["no tensor can be exported", "not selected", "kept"]);
    workspace
        .run("export", "out", &["-o", "model", "--format", "ktx2", "--overwrite"])
        .fails(2, &["is no export"]);
    workspace.run("export", "model", &["-o", "f", "--format", "ktx2"]).fails(3, &["manifest.json"]);
    for wrong in [["--format", "dds"], ["--max-dimension", "8"], ["--tensor", "("]] {
        assert_eq!(export(&wrong).code, 2, "{wrong:?}");
    }
    assert!(!workspace.names().iter().any(|name| name.contains("partial") || name == "f"));
}

/// Red bytes of the KTX 1 file that `astcenc` makes of an `.astc` file, for rows of `width` texels.
fn astcenc_reds(input: &Path, output: &Path, width: usize) -> Vec<u8> {
    const GL_RED: u32 = 0x1903;
    const GL_RGBA: u32 = 0x1908;
    let program = std::env::var("ASTCENC").unwrap_or_else(|_| "astcenc".to_owned());
    let status = Command::new(program)
        .args(["-dl".as_ref(), input.as_os_str(), output.as_os_str(), "-silent".as_ref()])
        .status()
        .expect("the astcenc command");
    assert!(status.success());
    let ktx = fs::read(output).unwrap();
    let word = |at: usize| u32::from_le_bytes(ktx[at..at + 4].try_into().unwrap());
    // Where all channels of an image are equal, astcenc writes one.
    let texel_bytes = match word(24) {
        GL_RED => 1,
        GL_RGBA => 4,
        other => panic!("glFormat {other:#x}"),
    };
    let data = &ktx[64 + word(60) as usize + 4..];
    data.chunks_exact((width * texel_bytes).next_multiple_of(4))
        .flat_map(|row| row[..width * texel_bytes].iter().step_by(texel_bytes).copied())
        .collect()
}

#[test]
#[ignore = "needs the astcenc command"]
fn astcenc_decodes_exported_files_as_the_reference() {
    let workspace = compressed();
    workspace.run("export", "out", &["-o", "e", "--format", "astc"]).ok();
    let folder = workspace.path("e");
    let index = index(&folder);
    for entry in index["tensors"].as_array().unwrap() {
        let path = folder.join(entry["file"].as_str().unwrap());
        let (w, h, ..) = block_of(entry);
        let footprint = Footprint::new(w, h).unwrap();
        let [width, height, layers] = ["width", "height", "layers"].map(|key| size(&entry[key]));
        let texels = astcenc_reds(&path, &workspace.path("texels.ktx"), width);
        assert_eq!(texels.len(), width * height * layers);
        let file = fs::read(&path).unwrap();
        let (blocks, _) = file[16..].as_chunks::<16>();
        let (across, down) = (width.div_ceil(w), height.div_ceil(h));
        assert_eq!(blocks.len(), across * down * layers);
        let mut decoded = vec![[f16::ZERO; 4]; footprint.texels()];
        for (number, &block) in blocks.iter().enumerate() {
            decode_fp16(block, footprint, Profile::Ldr, &mut decoded).unwrap();
            let (layer, row, col) =
                (number / (across * down), number / across % down, number % across);
            for (texel, value) in decoded.iter().enumerate() {
                let (x, y) = (col * w + texel % w, row * h + texel / w);
                if x < width && y < height {
                    let found = texels[(layer * height + y) * width + x];
                    let want = (value[0].to_f32() * 255.0 + 0.5) as u8;
                    assert_eq!(found, want, "{}", entry["name"]);
                }
            }
        }
    }
}
