"""Files of one member to another: a store's checkpoint, or a generation loaded beside, one by one, verified, resumable."""
