//! Images of programs that a test brings along.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use crate::succeed;

/// An archive as `docker save` writes it, of an image that holds one program (which needs nothing
/// beside itself) and runs it. Its files are in `folder`.
///
/// # Panics
/// If there is no such program, or `folder` cannot be written.
pub fn archive(folder: &Path, image: &str, program: &Path) -> PathBuf {
    let root = folder.join("image");
    std::fs::create_dir_all(root.join("tmp")).expect("made");
    std::fs::copy(program, root.join("program")).expect("copied");
    let tar = |archive: &str, from: &Path, names: &[&str]| {
        let mut command = Command::new("tar");
        command.arg("-cf").arg(folder.join(archive)).arg("-C");
        succeed(command.arg(from).args(names));
    };
    tar("layer.tar", &root, &["program", "tmp"]);
    let sum = succeed(Command::new("sha256sum").arg(folder.join("layer.tar")));
    let sum = sum.split_whitespace().next().expect("a sum");
    let config = json!({"architecture": "amd64", "os": "linux",
        "config": {"Entrypoint": ["/program"]},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{sum}")]}});
    let manifest = json!([{"Config": "config.json", "RepoTags": [image], "Layers": ["layer.tar"]}]);
    std::fs::write(folder.join("config.json"), config.to_string()).expect("written");
    std::fs::write(folder.join("manifest.json"), manifest.to_string()).expect("written");
    let names = ["manifest.json", "config.json", "layer.tar"];
    tar("image.tar", folder, &names);
    folder.join("image.tar")
}
