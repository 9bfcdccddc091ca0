"""What load is offered: profiles, arrivals, lengths, prompts. Pure, but for reading profiles and traces."""
