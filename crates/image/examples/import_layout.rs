//! Imports an OCI image layout and tells how long it took; for `bench/read-only-image`.
//!
//! Usage: `import_layout <store> <layout> <reference>`. Prints milliseconds, bytes and the path
//! of the root file system, tab-separated.

use std::io::Write;
use std::path::Path;
use std::time::Instant;

use image::ImageStore;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, store, layout, reference] = arguments.as_slice() else {
        return Err("usage: import_layout <store> <layout> <reference>".into());
    };
    let store = ImageStore::open(Path::new(store))?;
    let start = Instant::now();
    let image = store.import_layout(Path::new(layout), &reference.parse()?)?;
    let took_ms = start.elapsed().as_millis();
    let (bytes, path) = (image.size_bytes, image.rootfs.display());
    writeln!(std::io::stdout(), "{took_ms}\t{bytes}\t{path}")?;
    Ok(())
}
