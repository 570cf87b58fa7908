"""dstack's TEE: quotes, keys and signatures of the guest agent, and skills that can be proved with them."""
