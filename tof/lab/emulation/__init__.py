"""Laboratory: eNBs, gNBs, SGWs, UPFs, UEs and an application as values: frames in, frames out, no input or output."""
