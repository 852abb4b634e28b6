"""`zaibei drill`: scenarios played with real processes on a stage of their own, judged from outside, left as signed evidence."""
