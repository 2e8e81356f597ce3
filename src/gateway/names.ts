/** Why Emissary would misread a Secret of this name, or undefined. */
export function secretNameProblem(name: string): string | undefined {
  if (name.includes('.')) {
    return `the Secret name ${name} has a dot: Emissary reads what follows the last one as a namespace; leave it out`;
  }
  if (name === 'istio-certs') {
    return 'the Secret name istio-certs is taken: with AMBASSADOR_ISTIO_SECRET_DIR set, Emissary makes one up that hides it; choose another';
  }
  return undefined;
}

/** Why Emissary would misread a TLSContext of this name, or undefined. */
export function contextNameProblem(name: string): string | undefined {
  if (name.includes('.')) {
    return `the TLSContext name ${name} has a dot: Mappings could not refer to it without doubt; leave it out`;
  }
  if (name.endsWith('-context')) {
    return `the TLSContext name ${name} ends in -context: Emissary would tie it to a Host named ${name.slice(0, -'-context'.length)}; choose another`;
  }
  return undefined;
}
