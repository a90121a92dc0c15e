//! Turns `proto/ringway.proto` into messages, clients and servers. Pure Rust: no `protoc` is needed.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto/ringway.proto");
    let files = protox::compile(["ringway.proto"], ["proto"])?;
    // Programs read what `ringwayctl -o json` writes: the messages, in the names of the file.
    let serialize = "#[derive(serde::Serialize)]";
    tonic_prost_build::configure().btree_map(".").type_attribute(".", serialize).compile_fds(files)?;
    Ok(())
}
