"""What runs in the processes that are measured: jobs, and programs that publish or take messages."""
