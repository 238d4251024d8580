"""What a run leaves behind and shows: a row an epoch, a progress bar, pictures, a summary."""
