//! Arguments in, exit code out; everything else is the library's.

#![forbid(unsafe_code)]

/// A release is hundreds of thousands of small values that are made on one thread and dropped on another.
#[global_allocator]
static MEMORY: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    std::process::ExitCode::from(fabu::cli::main(std::env::args_os()) as u8)
}
