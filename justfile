# Everything that has to pass before a change lands.
check:
    .ci/run

test:
    cargo test --locked

# One run of the simulation, by its seed.
sim SEED:
    FABU_SEED={{SEED}} cargo test --locked --test sim -- --nocapture

bench:
    cargo bench

demo:
    cargo run --locked -- demo
