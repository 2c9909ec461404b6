"""What verified serving does on labelled streams: does the bound hold, and what does it cost?"""
