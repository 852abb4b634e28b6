"""Words every room speaks: identifiers, records, positions, batches, digests, states, errors. No input or output."""
